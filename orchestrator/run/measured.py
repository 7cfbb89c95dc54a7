"""What a run took, a step, an evaluation, a checkpoint, a start: what a forecast of one like it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from orchestrator.errors import NotFoundError, StorageError, UsageError
from orchestrator.plan.forecast_inputs import Measured
from orchestrator.plan.placement import at_world_size
from orchestrator.plan.plan import Numerics, Plan
from orchestrator.run import documents, files
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.ledger import driver_waited_s
from orchestrator.run.progress import Progress, read_progress
from orchestrator.run.segments import read_segments


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owner:
    """What is needed of an attempt's owner.json."""

    claimed_at: float
    submitted_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """An attempt that has done steps."""

    directory: AttemptDirectory
    owner: _Owner
    progress: Progress

    @property
    def waited_s(self) -> float:
        return driver_waited_s(self.directory, claimed_at=self.owner.claimed_at)

    @property
    def num_steps(self) -> int:
        return self.progress.step - self.progress.first_step + self.progress.num_rolled_back

    @property
    def training_s(self) -> float:
        return sum(self.progress.seconds.get(part, 0.0) for part in ("data", "compute", "communication"))

    @property
    def began_at(self) -> float:
        """The moment before its first step, in seconds since 1970."""
        assert self.progress.at is not None
        return self.progress.at - sum(self.progress.seconds.values())


def measure(run: RunDirectory, plan: Plan, *, numerics: Numerics) -> Measured:
    """What a run took; plan: its own. numerics: what is to be forecast, which must be of the same network and images.

    Raises NotFoundError if it has done no step yet, UsageError if it is another network's.
    """
    _refuse_other_network(run, plan.numerics, numerics)
    attempts = [found for attempt in run.attempts() if (found := _read(attempt)) is not None]
    num_steps = sum(attempt.num_steps for attempt in attempts)
    if num_steps == 0:
        raise NotFoundError(f"run {run.name} has done no step yet, so there is nothing to forecast from")
    newest = attempts[-1].progress
    return Measured(
        source=run.name,
        step_s=sum(attempt.training_s for attempt in attempts) / num_steps,
        busiest_images=max(at_world_size(plan, newest.world_size).placement.images_per_rank),
        evaluation_s=_evaluation_s(attempts),
        hold_s=_latest([attempt.progress.checkpoint_hold_s for attempt in attempts]),
        write_s=_latest([attempt.progress.checkpoint_write_s for attempt in attempts]),
        start_s=_start_s(attempts[0]),
        restart_s=_restart_s(attempts),
    )


def _refuse_other_network(run: RunDirectory, its: Numerics, wanted: Numerics) -> None:
    def of(numerics: Numerics) -> tuple[str, str]:
        return (
            f"{numerics.model.name} on {numerics.train_transform.image_size} px",
            f"{numerics.global_batch_size} images a step in {numerics.precision}",
        )

    if of(its) != of(wanted):
        raise UsageError(
            f"--like {run.name}: it trains {', '.join(of(its))}; the recipe wants {', '.join(of(wanted))}: "
            "name a run of the same network and batch"
        )


def _read(attempt: AttemptDirectory) -> _Attempt | None:
    progress = read_progress(attempt.progress)
    try:
        owner = documents.record(_Owner, files.read_json(attempt.owner))
    except (FileNotFoundError, StorageError, ValueError):
        return None
    if progress is None or progress.at is None or progress.step <= progress.first_step:
        return None
    return _Attempt(directory=attempt, owner=owner, progress=progress)


def _evaluation_s(attempts: Sequence[_Attempt]) -> float | None:
    count = sum(
        row.get("event") == "evaluated" for each in attempts for row in read_segments(each.directory.path, "events")
    )
    return sum(each.progress.seconds.get("evaluation", 0.0) for each in attempts) / count if count else None


def _latest(figures: Sequence[float | None]) -> float | None:
    return next((figure for figure in reversed(figures) if figure is not None), None)


def _start_s(first: _Attempt) -> float | None:
    """From its submission to its first step, waiting for room apart; None of an attempt that nobody asked for."""
    submitted_at = first.owner.submitted_at
    return None if submitted_at is None else max(first.began_at - submitted_at - first.waited_s, 0.0)


def _restart_s(attempts: Sequence[_Attempt]) -> float | None:
    """From the last sign of workers that were lost to the first step of those after them, waiting for room apart."""
    gaps = [
        max(following.began_at - before.progress.at - following.waited_s, 0.0)
        for before, following in pairwise(attempts)
        if following.owner.submitted_at is None and before.progress.at is not None
    ]
    return fmean(gaps) if gaps else None
