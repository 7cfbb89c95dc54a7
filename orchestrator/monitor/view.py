"""What a person sees of one run, as values: no files, no terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.monitor.curve import Curve
from orchestrator.monitor.news import News
from orchestrator.run.status import RunStatus
from orchestrator.run.workers import PHASES, Straggler, Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One run at one moment."""

    status: RunStatus
    loss: Curve = field(default_factory=Curve)
    """Of training batches, over steps."""
    top1: Curve = field(default_factory=Curve)
    """Of validations, in percent, over epochs."""
    learning_rate: Curve = field(default_factory=Curve)
    images_per_s: Curve = field(default_factory=Curve)
    world_size_wanted: int | None = None
    """How many workers the plan asks for."""
    workers: Workers | None = None
    news: Sequence[News] = ()
    """The latest events, oldest first."""

    @property
    def stragglers(self) -> Sequence[Straggler]:
        """Workers that the others wait for now."""
        return self.workers.stragglers if self.workers is not None else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The workers of one host together."""

    host: str
    ranks: Sequence[int]
    memory_used_bytes: int
    memory_bytes: int
    num_gpus: int
    gpu_memory_used_bytes: int
    gpu_memory_bytes: int
    gpu_utilization_percent: float | None
    """The mean over its workers' GPUs."""


def nodes(workers: Workers) -> list[Node]:
    """The hosts of an attempt, in the order of their first ranks."""
    ranks_of: dict[str, list[int]] = {}
    for rank, host in enumerate(workers.host):
        ranks_of.setdefault(host, []).append(rank)
    return [_node(workers, host, ranks) for host, ranks in ranks_of.items()]


def _node(workers: Workers, host: str, ranks: list[int]) -> Node:
    gpus = {workers.device[rank]: rank for rank in ranks if workers.gpu_memory_bytes[rank] is not None}
    utilizations = [percent for rank in gpus.values() if (percent := workers.gpu_utilization_percent[rank]) is not None]
    return Node(
        host=host,
        ranks=ranks,
        memory_used_bytes=max(workers.host_memory_used_bytes[rank] or 0 for rank in ranks),
        memory_bytes=max(workers.host_memory_bytes[rank] or 0 for rank in ranks),
        num_gpus=len(gpus),
        gpu_memory_used_bytes=sum(workers.gpu_memory_used_bytes[rank] or 0 for rank in gpus.values()),
        gpu_memory_bytes=sum(workers.gpu_memory_bytes[rank] or 0 for rank in gpus.values()),
        gpu_utilization_percent=sum(utilizations) / len(utilizations) if utilizations else None,
    )


def doing(workers: Workers, rank: int, activity: str) -> str:
    """What a worker does for most of its time: what the run does, and in training the longest phase of its step."""
    if activity != "training":
        return activity
    times = {phase: getattr(workers, f"{phase}_s")[rank] for phase in PHASES}
    longest = max(PHASES, key=lambda phase: times[phase])
    return {"data": "waits for images", "compute": "computes", "communication": "waits for others"}[longest]


def phase_shares(status: RunStatus) -> dict[str, float]:
    """The parts of a step's time by phase, summing to 1; empty before the first figures.

    As of the latest steps; what checkpoints hold up is spread over all steps of the attempt.
    """
    progress = status.progress
    if progress is None:
        return {}
    num_steps = progress.step - progress.first_step + progress.num_rolled_back
    saving_s = progress.seconds.get("checkpoint")
    seconds = {
        "data": progress.data_s,
        "compute": progress.compute_s,
        "communication": progress.communication_s,
        "checkpoint": saving_s / num_steps if saving_s is not None and num_steps > 0 else None,
    }
    known = {name: value for name, value in seconds.items() if value is not None}
    total = sum(known.values())
    return {name: value / total for name, value in known.items()} if total > 0 else {}
