"""What a run's files say of it, read honestly: RUNNING means that its writer renewed the lease seconds ago."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.errors import StorageError
from orchestrator.plan.version import FORMAT_VERSION
from orchestrator.run import documents, files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.lease import Lease, read_lease
from orchestrator.run.ledger import Ledger, read_ledger
from orchestrator.run.progress import Progress, read_progress
from orchestrator.run.spent import Limits, Spent, read_spent
from orchestrator.run.state import State, StateRecord
from orchestrator.run.workers import Straggler, read_workers


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """One run as it stands."""

    run: RunDirectory
    record: StateRecord
    state: State
    """As read: LOST where the record says active and nobody renews the lease."""
    reason: str
    at: float
    """When it was read, in seconds since 1970."""
    progress: Progress | None
    stragglers: Sequence[Straggler]
    """Workers that the others wait for."""

    @property
    def checkpoint_age_s(self) -> float | None:
        """Seconds since the last checkpoint; None before the first."""
        saved_at = self.progress.last_checkpoint_at if self.progress else None
        return None if saved_at is None else max(self.at - saved_at, 0.0)

    @property
    def world_size_wanted(self) -> int | None:
        """How many workers the plan asks for; None if it can't be read."""
        try:
            wanted = files.read_json(self.run.plan, format_version=FORMAT_VERSION)["placement"]["world_size"]
        except (FileNotFoundError, StorageError, KeyError, TypeError):
            return None
        return wanted if isinstance(wanted, int) else None

    @property
    def limits(self) -> Limits:
        """What it may take; no limits if the plan can't be read."""
        try:
            return documents.record(Limits, files.read_json(self.run.plan, format_version=FORMAT_VERSION)["execution"])
        except (FileNotFoundError, StorageError, KeyError, TypeError, ValueError, AttributeError):
            return Limits()

    @property
    def spent(self) -> Spent:
        """What it has taken of machines."""
        return read_spent(self.run, now=self.at if self.state.is_active else None)

    @property
    def ledger(self) -> Ledger:
        """Where the run's time went."""
        return read_ledger(self.run, self.record, self.state, now=self.at)

    def to_json(self) -> dict[str, Any]:
        """The stable keys of `dnctl status --json`; None where not known yet."""
        progress, spent, ledger, limits = self.progress, self.spent, self.ledger, self.limits
        return {
            "run": self.run.name,
            "path": str(self.run.path),
            "state": str(self.state),
            "reason": self.reason,
            "attempt": self.record.attempt,
            "epoch": progress.epoch if progress else None,
            "num_epochs": progress.num_epochs if progress else None,
            "step": progress.step if progress else None,
            "num_steps": progress.num_steps if progress else None,
            "loss": progress.loss if progress else None,
            "train_top1": progress.train_top1 if progress else None,
            "top1": progress.top1 if progress else None,
            "top5": progress.top5 if progress else None,
            "best_top1": progress.best_top1 if progress else None,
            "test_top1": progress.test_top1 if progress else None,
            "test_top5": progress.test_top5 if progress else None,
            "images_per_s": progress.images_per_s if progress else None,
            "eta_s": progress.eta_s if progress and self.state == State.RUNNING else None,
            "world_size": progress.world_size if progress else None,
            "last_checkpoint": progress.last_checkpoint if progress else None,
            "recoveries": max(self.record.attempt - 1, 0),
            "goodput": ledger.goodput,
            "created_at": self.record.created_at,
            "finished_at": self.record.finished_at,
            "exit_code": self.record.exit_code,
            "after": list(self.record.after),
            "world_size_wanted": self.world_size_wanted,
            "last_checkpoint_age_s": self.checkpoint_age_s,
            "stragglers": [asdict(straggler) for straggler in self.stragglers],
            "ledger": asdict(ledger),
            "hours": spent.hours,
            "max_hours": limits.max_hours,
            "money": limits.money_of(spent),
            "max_money": limits.max_money,
            "logs": str(self.run.attempt(self.record.attempt).logs) if self.record.attempt else None,
        }


def read_status(run: RunDirectory, *, now: float) -> RunStatus:
    """The status of a run. Raises NotFoundError, or StorageError if state.json is damaged."""
    record = run.read_state()
    state, reason = record.state, record.reason
    lease = read_lease(run.lease)
    # A driver that waits for room writes PENDING and renews its lease; one that has yet to begin hasn't a lease.
    waits = state is State.PENDING and lease is not None and lease.renewed_at >= record.updated_at
    if (state.is_active or waits) and (lease is None or not lease.is_live(now)):
        state, reason = State.LOST, f"{_silence(lease, now)}; it was {record.state}: {reason}"
    return RunStatus(
        run=run,
        record=record,
        state=state,
        reason=reason,
        at=now,
        progress=newest_progress(run),
        stragglers=_stragglers(run, record) if state is State.RUNNING else (),
    )


def _stragglers(run: RunDirectory, record: StateRecord) -> Sequence[Straggler]:
    workers = read_workers(run.attempt(record.attempt).telemetry)
    return workers.stragglers if workers is not None else ()


def _silence(lease: Lease | None, now: float) -> str:
    if lease is None:
        return "its driver holds no lease"
    if lease.is_given_back:
        return "its driver ended without saying how"
    if lease.renewed_at > now:
        return f"its driver's lease is {lease.renewed_at - now:.0f} s ahead of the clock of this machine"
    return f"its driver has not been heard of for {now - lease.renewed_at:.0f} s"


def newest_progress(run: RunDirectory) -> Progress | None:
    """The figures of the newest attempt that left any.

    An attempt that has saved nothing yet still has the checkpoint that it began from, known from the one before.
    """
    try:
        attempts = run.attempts()
    except StorageError:
        return None
    newest: Progress | None = None
    for attempt in reversed(attempts):
        progress = read_progress(attempt.progress)
        if progress is not None and newest is None:
            newest = progress
        if newest is not None and (newest.last_checkpoint is not None or newest.first_step == 0):
            return newest
        if newest is not None and progress is not None and _step(progress.last_checkpoint) == newest.first_step:
            return replace(
                newest, last_checkpoint=progress.last_checkpoint, last_checkpoint_at=progress.last_checkpoint_at
            )
    return newest


def _step(checkpoint: str | None) -> int | None:
    """The step in a checkpoint's name."""
    match = re.fullmatch(r"step-(\d+)\.\d+", checkpoint or "")
    return int(match[1]) if match else None
