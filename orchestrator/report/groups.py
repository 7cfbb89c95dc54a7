"""Runs that repeat one another, alike but for their seeds: shown as one, with mean and spread."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.plan.plan import Numerics
from orchestrator.report.history import Evaluation, RunHistory
from orchestrator.run.family import Spread, spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One run, or several that differ in nothing but the seed."""

    label: str
    runs: Sequence[RunHistory]

    @property
    def first(self) -> RunHistory:
        """Stands for all where they are alike."""
        return self.runs[0]

    @property
    def numerics(self) -> Numerics | None:
        """Of the first; None if it has no plan."""
        return self.first.plan.numerics if self.first.plan is not None else None

    @property
    def counted(self) -> Sequence[RunHistory]:
        """The runs whose figures stand for the group: those that are finished, or all while none is."""
        finished = [run for run in self.runs if run.is_finished]
        return [run for run in finished or self.runs if run.final is not None]

    @property
    def top1_error(self) -> Spread | None:
        """In percent."""
        return self._error(lambda final: final.top1)

    @property
    def top5_error(self) -> Spread | None:
        """In percent."""
        return self._error(lambda final: final.top5)

    def _error(self, accuracy: Callable[[Evaluation], float]) -> Spread | None:
        return spread([100 - accuracy(run.final) for run in self.counted if run.final is not None])

    def errors_with(self, crops: int) -> tuple[Spread | None, Spread | None]:
        """Top-1 and top-5 error with so many crops, of the runs that `dnctl eval` was asked about."""
        found = [each for run in self.counted if (each := run.errors_with(crops)) is not None]
        return spread([each.top1_error for each in found]), spread([each.top5_error for each in found])

    @property
    def is_finished(self) -> bool:
        """Whether its figures are those of finished runs."""
        return any(run.is_finished for run in self.runs)

    @property
    def epochs_done(self) -> float:
        """The fewest of its counted runs."""
        done = [run.epochs_done for run in self.counted]
        return min(done, default=0.0)


def group_runs(runs: Sequence[RunHistory]) -> tuple[Group, ...]:
    """The groups of some runs, in the order of their first ones; a run without a plan is a group of its own."""
    alike: dict[object, list[RunHistory]] = {}
    for run in runs:
        alike.setdefault(_key(run), []).append(run)
    return tuple(Group(label=_label(members), runs=tuple(members)) for members in alike.values())


def _key(run: RunHistory) -> object:
    if run.plan is None:
        return run.name
    seedless: Any = replace(run.plan.numerics, seed=0)
    test_weights = run.plan.execution.test_weights
    changes = tuple((deviation.step, deviation.changes) for deviation in run.plan.deviations)
    return repr(asdict(seedless)), test_weights, changes


def _label(runs: Sequence[RunHistory]) -> str:
    """The run's name; of several, what their names have in common, and the seeds."""
    if len(runs) == 1:
        return runs[0].name
    seeds = ", ".join(str(run.plan.numerics.seed) for run in runs if run.plan is not None)
    common = _common_beginning([run.name.removesuffix(f".seed{_seed(run)}") for run in runs])
    return f"{common or runs[0].name} (seeds {seeds})"


def _seed(run: RunHistory) -> int | None:
    return run.plan.numerics.seed if run.plan is not None else None


def _common_beginning(names: Sequence[str]) -> str:
    shortest = min(names, key=len)
    length = next((at for at in range(len(shortest)) if len({name[at] for name in names}) > 1), len(shortest))
    return shortest[:length].rstrip("._-")
