"""Where each second of a run's wall time went, from its first submission on.

Nothing is written for it: each attempt leaves when it was asked for, when it began and what its time went into, and the
seconds between those are starting, waiting or idle. So the entries add up to the wall time by construction.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest

from orchestrator.errors import StorageError
from orchestrator.run import documents, files
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.progress import Progress, read_progress
from orchestrator.run.state import State, StateRecord


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Seconds by what they went into."""

    queue: float = 0.0
    """From a submission until its driver began, and while a driver waited for room or for other runs."""
    start: float = 0.0
    """Starting, noticing the loss of, starting again and ending workers."""
    data: float = 0.0
    """Steps waiting for images; likewise the next two."""
    compute: float = 0.0
    communication: float = 0.0
    checkpoint: float = 0.0
    """Steps held up by checkpoints."""
    evaluation: float = 0.0
    recomputation: float = 0.0
    """Steps that were lost and done again."""
    idle: float = 0.0
    """Stopped, failed or lost, and not asked to go on yet."""

    @property
    def wall_s(self) -> float:
        """All of it."""
        return math.fsum(asdict(self).values())

    @property
    def goodput(self) -> float | None:
        """The part of the wall time that went into steps and evaluations that count, from 0 to 1; None before any."""
        good = self.data + self.compute + self.communication + self.evaluation
        return good / self.wall_s if good > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """What an attempt left for the ledger. Times are seconds since 1970."""

    claimed_at: float
    """When its driver took the number."""
    submitted_at: float | None
    """None if the driver that was there already took the number."""
    waited_s: float = 0.0
    """So long its driver waited then."""
    progress: Progress | None = None

    @property
    def began_at(self) -> float:
        """When the wait of the driver was over."""
        return self.claimed_at + self.waited_s


def read_ledger(run: RunDirectory, record: StateRecord, state: State, *, now: float) -> Ledger:
    """The ledger of a run, to its end or to now. Damaged files count as if they were missing.

    state: as read; LOST counts as idle since the last sign of life.
    """
    attempts = [found for attempt in _claimed(run) if (found := _read(attempt)) is not None]
    until = record.finished_at or (record.updated_at if state.is_finished else now)
    ledger, cursor = Ledger(), record.created_at
    for attempt, following in zip_longest(attempts, attempts[1:]):
        cursor = _until_claimed(ledger, attempt, cursor)
        cursor = _while_training(ledger, attempt, following, cursor)
    rest = max(until - cursor, 0.0)
    match state:
        case State.PENDING:
            ledger.queue += rest
        case State.RUNNING | State.STOPPING:
            ledger.compute += rest
        case State.LOST:
            ledger.idle += rest
        case _:
            ledger.start += rest
    return ledger


def time_exposed_s(run: RunDirectory, *, attempt: int, now: float) -> float:
    """Seconds in which attempts up to `attempt`, which goes on, could have failed: not those of waiting or standing."""
    exposed_s = 0.0
    for directory in _claimed(run):
        found = _read(directory) if directory.number <= attempt else None
        if found is not None:
            until = now if directory.number == attempt else (found.progress and found.progress.at) or found.began_at
            exposed_s += max(until - found.began_at, 0.0)
    return exposed_s


def _claimed(run: RunDirectory) -> Sequence[AttemptDirectory]:
    try:
        return run.attempts()
    except StorageError:
        return ()


def _read(attempt: AttemptDirectory) -> _Attempt | None:
    try:
        owner = documents.record(_Attempt, files.read_json(attempt.owner))
    except (FileNotFoundError, StorageError, ValueError):
        return None
    waited_s = driver_waited_s(attempt, claimed_at=owner.claimed_at)
    return replace(owner, waited_s=waited_s, progress=read_progress(attempt.progress))


def driver_waited_s(attempt: AttemptDirectory, *, claimed_at: float) -> float:
    """How long an attempt's driver waited for room or for other runs after it took the number."""
    try:
        return max(float(files.read_json(attempt.began)["began_at"]) - claimed_at, 0.0)
    except (FileNotFoundError, StorageError, KeyError, TypeError, ValueError):
        return 0.0


def _until_claimed(ledger: Ledger, attempt: _Attempt, cursor: float) -> float:
    if attempt.submitted_at is None:
        ledger.start += max(attempt.claimed_at - cursor, 0.0)
        ledger.queue += max(attempt.began_at - max(attempt.claimed_at, cursor), 0.0)
    else:
        submitted_at = max(attempt.submitted_at, cursor)
        ledger.idle += submitted_at - cursor
        ledger.queue += max(attempt.began_at - submitted_at, 0.0)
    return max(attempt.began_at, cursor)


def _while_training(ledger: Ledger, attempt: _Attempt, following: _Attempt | None, cursor: float) -> float:
    """Add what the attempt measured; returns when it was last heard of."""
    progress = attempt.progress
    if progress is None or progress.at is None:
        return cursor
    measured_s = sum(progress.seconds.values())
    ledger.start += max(progress.at - measured_s - cursor, 0.0)
    ledger.data += progress.seconds.get("data", 0.0)
    ledger.compute += progress.seconds.get("compute", 0.0)
    ledger.communication += progress.seconds.get("communication", 0.0)
    ledger.checkpoint += progress.seconds.get("checkpoint", 0.0)
    ledger.evaluation += progress.seconds.get("evaluation", 0.0)
    _count_as_recomputed(ledger, progress, progress.num_rolled_back + _num_lost(progress, following))
    return max(progress.at, cursor)


def _num_lost(progress: Progress, following: _Attempt | None) -> int:
    """Steps that the next attempt had to do again."""
    if following is None or following.progress is None:
        return 0
    return max(progress.step - following.progress.first_step, 0)


def _count_as_recomputed(ledger: Ledger, progress: Progress, num_steps: int) -> None:
    """Move an attempt's last steps from what they went into to recomputation."""
    num_done = progress.step - progress.first_step + progress.num_rolled_back
    share = min(num_steps / num_done, 1.0) if num_done > 0 else 0.0
    if share <= 0:
        return
    parts: Sequence[str] = ("data", "compute", "communication")
    for part in parts:
        lost_s = share * progress.seconds.get(part, 0.0)
        setattr(ledger, part, getattr(ledger, part) - lost_s)
        ledger.recomputation += lost_s
