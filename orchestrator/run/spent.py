"""What a run has taken of machines: the hours during which it had workers, over all attempts, and what they cost.

An attempt counts from the moment at which all of its workers had begun to the last sign of life of the first one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time

from orchestrator.errors import StorageError
from orchestrator.run import documents, files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.progress import read_progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What all attempts took together."""

    hours: float = 0.0
    worker_hours: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run may take, as its plan's execution has it; None: any amount."""

    max_hours: float | None = None
    max_money: float | None = None
    price_per_worker_hour: float | None = None

    def money_of(self, spent: Spent) -> float | None:
        """What was spent, in money; None without a price."""
        return None if self.price_per_worker_hour is None else spent.worker_hours * self.price_per_worker_hour

    def reached(self, spent: Spent) -> str | None:
        """Which limit is reached, in words; None if there is some left of each."""
        money = self.money_of(spent)
        for key, limit, taken in (("hours", self.max_hours, spent.hours), ("money", self.max_money, money)):
            if limit is not None and taken is not None and taken >= limit:
                return f"limits.{key} is reached: {taken:.3g} of {limit:g}; `dnctl resume` with a higher one goes on"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNodes:
    """The node of each rank of an attempt, and since when they have been there."""

    nodes: tuple[str, ...]
    began_at: float


def read_spent(run: RunDirectory, *, now: float | None) -> Spent:
    """What a run has taken. now: until when its newest attempt counts; None: until it was last heard of."""
    hours = worker_hours = 0.0
    try:
        attempts = run.attempts()
    except StorageError:
        return Spent()
    for attempt in attempts:
        workers = read_worker_nodes(attempt.worker_nodes)
        if workers is None:
            continue
        nodes, began_at = workers.nodes, workers.began_at
        progress = read_progress(attempt.progress)
        ended_at = progress.at if progress is not None and progress.at is not None else began_at
        if attempt is attempts[-1] and now is not None:
            ended_at = now
        attempt_h = max(ended_at - began_at, 0.0) / 3600
        hours += attempt_h
        worker_hours += attempt_h * len(nodes)
    return Spent(hours=hours, worker_hours=worker_hours)


def write_worker_nodes(path: Path, worker_nodes: Sequence[str]) -> None:
    """Note which node each rank of an attempt is on, and since when."""
    files.write_json(path, {"nodes": list(worker_nodes), "began_at": time()})


def read_worker_nodes(path: Path) -> WorkerNodes | None:
    """Where the workers of an attempt are; None before they have begun."""
    try:
        return documents.record(WorkerNodes, files.read_json(path))
    except (FileNotFoundError, StorageError, ValueError):
        return None
