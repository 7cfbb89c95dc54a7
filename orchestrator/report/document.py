"""All that a report says, as values: read, grouped and compared; what is drawn and printed comes from here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.report.comparison import Compared, compare
from orchestrator.report.groups import group_runs
from orchestrator.report.history import RunHistory, read_history
from orchestrator.report.setting import setting_name
from orchestrator.run.directory import RunDirectory
from orchestrator.run.evaluations import KeptEvaluation
from orchestrator.run.family import Spread

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, total)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known of some runs at one moment."""

    runs: Sequence[RunHistory]
    groups: Sequence[Compared]
    """Runs that differ in their seed alone are one."""
    made_at: float
    """In seconds since 1970."""

    @property
    def missing(self) -> Mapping[str, Sequence[str]]:
        """What isn't there of a run, by its name."""
        return {run.name: run.missing for run in self.runs if run.missing}


def read_report(runs: Sequence[RunDirectory], *, now: float, progress: Progress) -> Report:
    """Read the runs. Raises NotFoundError, or StorageError if one's state can't be read."""
    histories = []
    for number, run in enumerate(runs):
        progress("reading runs", number, len(runs))
        histories.append(read_history(run, now=now))
    groups = [compare(group) for group in group_runs(histories)]
    return Report(runs=tuple(histories), groups=tuple(groups), made_at=now)


def report_json(report: Report) -> dict[str, Any]:
    """The numbers of the report, with stable keys; None where not known."""
    return {
        "runs": [_run_json(run) for run in report.runs],
        "groups": [_group_json(compared) for compared in report.groups],
    }


def _run_json(run: RunHistory) -> dict[str, Any]:
    final, ledger = run.final, run.status.ledger
    return {
        "run": run.name,
        "state": str(run.status.state),
        "seed": run.plan.numerics.seed if run.plan is not None else None,
        "epochs_done": run.epochs_done if final is not None else None,
        "top1_error": 100 - final.top1 if final is not None else None,
        "top5_error": 100 - final.top5 if final is not None else None,
        "evaluations": [_kept_json(each) for each in run.asked_for],
        "is_of_test_set": run.test is not None,
        "goodput": ledger.goodput,
        "ledger": asdict(ledger),
        "missing": list(run.missing),
    }


def _kept_json(kept: KeptEvaluation) -> dict[str, Any]:
    return {**asdict(kept), "top1_error": kept.top1_error, "top5_error": kept.top5_error}


def _group_json(compared: Compared) -> dict[str, Any]:
    group, numerics = compared.group, compared.group.numerics
    return {
        "label": group.label,
        "runs": [run.name for run in group.runs],
        "network": numerics.model.name if numerics is not None else None,
        "setting": setting_name(compared.setting) if compared.setting is not None else None,
        "crops": numerics.eval_transform.crops if numerics is not None else None,
        "is_finished": group.is_finished,
        "num_parameters": compared.cost.num_parameters if compared.cost is not None else None,
        "num_multiply_adds": compared.cost.num_multiply_adds if compared.cost is not None else None,
        "top1_error": _spread_json(group.top1_error),
        "top5_error": _spread_json(group.top5_error),
        "paper": asdict(compared.paper) if compared.paper is not None else None,
        "difference": compared.difference,
        "top5_difference": compared.top5_difference,
        "deviations": list(compared.deviations),
    }


def _spread_json(spread: Spread | None) -> dict[str, Any] | None:
    return asdict(spread) if spread is not None else None
