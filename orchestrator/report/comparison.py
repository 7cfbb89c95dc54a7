"""Runs beside the paper: each group's figures, the paper's of the same network and setting, and the difference."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.plan.plan import Numerics
from orchestrator.report.deviations import deviations, recorded
from orchestrator.report.groups import Group
from orchestrator.report.network import Cost, cost_of
from orchestrator.report.setting import (
    SettingOrImagenet,
    imagenet_row,
    papers_settings,
    setting_of,
    small_images_row,
)
from orchestrator.report.tradeoff import AUTHORS_README, TORCH_README


@dataclass(frozen=True, slots=True, kw_only=True)
class PapersErrors:
    """What a group is compared with; in percent."""

    source: str
    top1: float
    top5: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A group and what the paper says of the same."""

    group: Group
    setting: SettingOrImagenet | None
    """None: its data is none of the paper's, or it has no plan."""
    cost: Cost | None
    paper: PapersErrors | None
    deviations: Sequence[str]
    """How its settings differ from the paper's, and what else keeps its figures from being compared, as sentences."""

    @property
    def difference(self) -> float | None:
        """Top-1 error of the group less the paper's, in points; None where one of the two isn't known."""
        error = self.group.top1_error
        return None if error is None or self.paper is None else error.mean - self.paper.top1

    @property
    def top5_difference(self) -> float | None:
        """The same of top-5 errors."""
        error = self.group.top5_error
        if error is None or self.paper is None or self.paper.top5 is None:
            return None
        return error.mean - self.paper.top5


def compare(group: Group) -> Compared:
    """Hold a group against the paper."""
    numerics = group.numerics
    setting = setting_of(numerics) if numerics is not None else None
    return Compared(
        group=group,
        setting=setting,
        cost=cost_of(numerics) if numerics is not None else None,
        paper=_papers_errors(numerics, setting) if numerics is not None and setting is not None else None,
        deviations=tuple(_deviations(group, numerics, setting)),
    )


def _papers_errors(numerics: Numerics, setting: SettingOrImagenet) -> PapersErrors | None:
    if setting != "imagenet":
        row = small_images_row(numerics)
        error = row.errors[setting] if row is not None else None
        return PapersErrors(source="Table 2", top1=error) if error is not None else None
    row3 = imagenet_row(numerics)
    if row3 is not None:
        column = 0 if numerics.eval_transform.crops == 1 else 1
        return PapersErrors(source="Table 3", top1=row3.top1[column], top5=row3.top5[column])
    name = numerics.model.name.removeprefix("timm:")
    if numerics.eval_transform.crops == 1 and name in AUTHORS_README | TORCH_README:
        whose = "the authors' README" if name in AUTHORS_README else "the Torch code's README"
        return PapersErrors(source=whose, top1=(AUTHORS_README | TORCH_README)[name])
    return None


def _deviations(group: Group, numerics: Numerics | None, setting: SettingOrImagenet | None) -> Iterator[str]:
    if numerics is None:
        return
    plan = group.first.plan
    if setting is None:
        num_images = numerics.num_train_images + numerics.num_held_out_images
        yield (
            f"Its data is none of the paper's: {num_images:,} training images of {numerics.num_classes:,} classes. "
            "There is no row to compare with, and its error says nothing beside the paper's."
        )
    else:
        paper = papers_settings(numerics, setting)
        if paper is None:
            yield "What the paper's settings for this network would be isn't known here, so they aren't compared."
        else:
            if not paper.is_of_this_network:
                yield (
                    f"The paper's tables have no {numerics.model.name} in this setting: what is around the network is "
                    f"compared with the recipe {paper.recipe}."
                )
            yield from deviations(numerics, paper.plan.numerics, with_network=paper.is_of_this_network)
            if plan is not None and numerics.num_test_images:
                ours, theirs = plan.execution.test_weights, paper.plan.execution.test_weights
                if ours != theirs:
                    yield f"The test set was shown to the {ours} weights instead of the {theirs} ones."
    for deviation in plan.deviations if plan is not None else ():
        yield recorded(deviation, numerics.steps_per_epoch)
    left_out = max(run.num_steps_left_out for run in group.runs)
    if left_out:
        yield f"The divergence guard left out {left_out:,} of {numerics.num_steps:,} steps."
    unfinished = [run.name for run in group.runs if not run.is_finished]
    if group.is_finished and unfinished:
        yield f"Not counted in its figures, since they aren't finished: {', '.join(unfinished)}."
    if not group.is_finished:
        done = group.epochs_done
        yield (
            f"Its figures are those of {done:.4g} of {numerics.epochs:,} epochs: no result yet."
            if group.counted
            else f"It has been evaluated after none of its {numerics.epochs:,} epochs yet."
        )
