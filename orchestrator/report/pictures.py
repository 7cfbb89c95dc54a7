"""Which figures a report has."""

from collections.abc import Sequence

import safetensors.numpy
from safetensors import SafetensorError

from orchestrator.report.comparison import Compared
from orchestrator.report.document import Progress, Report
from orchestrator.report.figures.curves import curve_pictures
from orchestrator.report.figures.ledger import ledger_picture
from orchestrator.report.figures.reuse import reuse_picture
from orchestrator.report.figures.style import Picture
from orchestrator.report.figures.tradeoff import tradeoff_pictures
from orchestrator.report.history import RunHistory
from orchestrator.report.reuse import feature_reuse
from orchestrator.report.setting import SettingOrImagenet, setting_name
from orchestrator.report.tradeoff import Point, papers_lines
from orchestrator.run.checkpoints import newest_whole
from orchestrator.run.contents import MODEL
from orchestrator.run.family import Spread


def curves(report: Report) -> Sequence[Picture]:
    """The runs' curves on one another."""
    return list(curve_pictures([compared.group for compared in report.groups]))


def ledger(report: Report) -> Picture | None:
    """Where the time of each run went."""
    return ledger_picture([(run.name, run.status.ledger) for run in report.runs])


def tradeoffs(report: Report) -> tuple[Sequence[Picture], Sequence[str]]:
    """Error against size, for each of the paper's settings that runs are in, and for other data where runs compare.

    And why runs that have an error have no point there, as sentences.
    """
    by_setting: dict[SettingOrImagenet | None, list[Compared]] = {}
    for compared in report.groups:
        if compared.cost is not None and compared.group.top1_error is not None:
            by_setting.setdefault(compared.setting, []).append(compared)
    pictures: list[Picture] = []
    missing = []
    for setting, members in by_setting.items():
        points = []
        for each in members:
            drawn = _error_to_draw(each)
            if drawn is None:
                missing.append(_no_point(each))
            elif each.cost is not None:
                points.append(Point(name=each.group.label, cost=each.cost, error=drawn.mean))
        if setting is not None:
            name = setting_name(setting)
            error = "top-1 error, %, one crop" if setting == "imagenet" else "test error, %"
            pictures += tradeoff_pictures(name, papers_lines(setting), points, error=error, name=setting)
        elif len({point.cost.num_parameters for point in points}) > 1:
            pictures += tradeoff_pictures("These runs", (), points, error="top-1 error, %", name="runs")
    return pictures, missing


def _no_point(compared: Compared) -> str:
    label, first = compared.group.label, compared.group.first.name
    return (
        f"{label} has no point in error against size, which is drawn for one crop: it was evaluated with ten alone. "
        f"`dnctl eval {first} --crops 1` keeps what one comes to."
    )


def _error_to_draw(compared: Compared) -> Spread | None:
    """On ImageNet that of one crop, as the paper draws it; None if nobody has evaluated with one."""
    group, numerics = compared.group, compared.group.numerics
    if compared.setting == "imagenet" and numerics is not None and numerics.eval_transform.crops != 1:
        return group.errors_with(1)[0]
    return group.top1_error


def reuse(report: Report, *, progress: Progress) -> tuple[Sequence[Picture], Sequence[str]]:
    """A heat map for each run that has a checkpoint of a DenseNet, and why others have none, as sentences.

    Of runs that differ in their seed alone it is the first one's.
    """
    pictures, missing = [], []
    for number, compared in enumerate(report.groups):
        progress("reading checkpoints", number, len(report.groups))
        found = _reuse_of(compared.group.first, name=f"reuse-{number + 1}")
        if isinstance(found, Picture):
            pictures.append(found)
        else:
            missing.append(found)
    return pictures, missing


def _reuse_of(run: RunHistory, *, name: str) -> Picture | str:
    faults: list[str] = []
    found = newest_whole(run.status.run.checkpoints, passed_over=lambda _, error: faults.append(str(error)))
    if found is None:
        said = "; ".join(faults) or "it has no checkpoint yet"
        return f"{run.name} has no heat map of feature reuse: {said}."
    checkpoint, contents = found
    try:
        weights = safetensors.numpy.load(contents[MODEL])
    except (KeyError, SafetensorError) as error:
        return f"{run.name} has no heat map of feature reuse: {checkpoint.path.name} holds no weights ({error})."
    blocks = feature_reuse(weights)
    if not blocks:
        return f"{run.name} has no heat map of feature reuse: its network is no DenseNet."
    return reuse_picture(run.name, blocks, name=name, checkpoint=f"checkpoint {checkpoint.path.name}")
