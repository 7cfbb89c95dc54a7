"""Curves of runs over epochs, on one another: a run is a line, runs that differ in their seed a mean and its range."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from orchestrator.monitor.curve import Curve
from orchestrator.report.figures.style import (
    COLORS,
    GREY,
    HEIGHT_IN,
    Picture,
    drawing,
    legend_below,
    picture,
    plain,
    shortened,
)
from orchestrator.report.groups import Group
from orchestrator.report.history import MarkKind, RunHistory

MAX_DRAWN: Final = 2 * len(COLORS)
"""Groups that can be told apart: those of the second half have dots on their lines."""
_FEW_POINTS: Final = 12
_MARK_IN: Final = 0.11
"""Height of a row of marks; likewise of a label in the legend."""
_LABEL_IN: Final = 0.16
_MARK_SYMBOLS: Final[Mapping[MarkKind, str]] = {
    "preempted": "v",
    "resized": "h",
    "stopped": "s",
    "failed": "X",
    "resumed": ">",
    "rolled back": "<",
    "schedule changed": "D",
}

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quantity:
    """What one figure shows."""

    name: str
    title: str
    unit: str
    curve: Callable[[RunHistory], Curve]
    training: Callable[[RunHistory], Curve] | None = None
    """The same of training images, drawn dashed."""
    scale: Literal["linear", "log"] = "linear"


def _top1_error(run: RunHistory) -> Curve:
    return _errors(run, [100 - each.top1 for each in run.evaluations])


def _top5_error(run: RunHistory) -> Curve:
    return _errors(run, [100 - each.top5 for each in run.evaluations])


def _errors(run: RunHistory, errors: Sequence[float]) -> Curve:
    return Curve(x=tuple(float(each.step) for each in run.evaluations), y=tuple(errors))


def _train_error(run: RunHistory) -> Curve:
    return Curve(x=run.train_top1.x, y=tuple(100 - value for value in run.train_top1.y))


QUANTITIES: Final = (
    _Quantity(name="loss", title="Training loss", unit="cross-entropy, nats", curve=lambda run: run.loss, scale="log"),
    _Quantity(name="top1", title="Top-1 error", unit="top-1 error, %", curve=_top1_error, training=_train_error),
    _Quantity(name="top5", title="Top-5 error, validation", unit="top-5 error, %", curve=_top5_error),
    _Quantity(
        name="learning-rate",
        title="Learning rate",
        unit="learning rate",
        curve=lambda run: run.learning_rate,
        scale="log",
    ),
    _Quantity(
        name="throughput", title="Throughput, training", unit="images per second", curve=lambda run: run.images_per_s
    ),
)


def curve_pictures(groups: Sequence[Group]) -> Iterator[Picture]:
    """A picture for each quantity that any of the runs has."""
    for quantity in QUANTITIES:
        if any(quantity.curve(run).x for group in groups for run in group.runs):
            yield _picture(quantity, groups[:MAX_DRAWN])


def _picture(quantity: _Quantity, groups: Sequence[Group]) -> Picture:
    kinds = [kind for kind in _MARK_SYMBOLS if any(m.kind == kind for g in groups for r in g.runs for m in r.marks)]
    num_labels = len(groups) + len(kinds) + 2 * (quantity.training is not None)
    with drawing(height_in=HEIGHT_IN + _MARK_IN * len(kinds) + _LABEL_IN * num_labels / 2) as figure:
        axes = figure.add_subplot()
        for number, group in enumerate(groups):
            _draw_group(axes, quantity, group, number)
        if quantity.training is not None:
            axes.plot([], [], color=GREY, label="validation")
            axes.plot([], [], color=GREY, linestyle="--", linewidth=1.1, label="training")
        axes.set_title(quantity.title, pad=6 + 72 * _MARK_IN * len(kinds))
        axes.set(xlabel="epochs done", ylabel=quantity.unit, yscale=quantity.scale)
        if quantity.scale == "log":
            _label_plainly(axes)
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        _draw_marks(axes, groups, kinds)
        legend_below(figure, axes)
        drawn = ", ".join(group.label for group in groups)
        return picture(
            figure,
            name=quantity.name,
            title=quantity.title,
            alternative=f"{quantity.title} over epochs: {_said(quantity, groups)}",
            caption=f"{quantity.title} of {drawn}.",
        )


def _draw_group(axes: Axes, quantity: _Quantity, group: Group, number: int) -> None:
    color = COLORS[number % len(COLORS)]
    has_dots = number >= len(COLORS)
    label = plain(shortened(group.label))
    found = _together(group, quantity.curve)
    if found is not None:
        x, mean, low, high = found
        marker = "o" if has_dots or len(x) <= _FEW_POINTS else ""
        axes.plot(x, mean, color=color, marker=marker, markevery=max(1, len(x) // 20), label=label)
        if len(group.runs) > 1:
            axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    training = _together(group, quantity.training) if quantity.training is not None else None
    if training is not None:
        x, mean, *_ = training
        axes.plot(x, mean, color=color, linestyle="--", linewidth=1.1)


def _together(group: Group, curve: Callable[[RunHistory], Curve]) -> tuple[Values, Values, Values, Values] | None:
    """(epochs, mean, lowest, highest) of a group's curves, where all of them are; None if there are none."""
    lines = [(epochs, values) for run in group.runs if (line := _line(run, curve)) for epochs, values in [line]]
    if not lines:
        return None
    if len(lines) == 1:
        epochs, values = lines[0]
        return epochs, values, values, values
    first, last = max(epochs[0] for epochs, _ in lines), min(epochs[-1] for epochs, _ in lines)
    everywhere = np.unique(np.concatenate([epochs for epochs, _ in lines]))
    shared = everywhere[(everywhere >= first) & (everywhere <= last)]
    if not len(shared):
        epochs, values = lines[0]
        return epochs, values, values, values
    at_shared = np.stack([np.interp(shared, epochs, values) for epochs, values in lines])
    return shared, at_shared.mean(axis=0), at_shared.min(axis=0), at_shared.max(axis=0)


def _line(run: RunHistory, curve: Callable[[RunHistory], Curve]) -> tuple[Values, Values] | None:
    """(epochs, values); None of a run that has none or no epochs."""
    found = curve(run)
    if not found.x or run.steps_per_epoch is None:
        return None
    return np.asarray(found.x, dtype=np.float64) / run.steps_per_epoch, np.asarray(found.y, dtype=np.float64)


def _draw_marks(axes: Axes, groups: Sequence[Group], kinds: Sequence[MarkKind]) -> None:
    """A thin line for each thing that happened, its symbol above it: a row a kind, so that none hides another."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    for number, group in enumerate(groups):
        color = COLORS[number % len(COLORS)] if len(groups) > 1 else GREY
        marks = [(mark, run.steps_per_epoch) for run in group.runs for mark in run.marks]
        for mark, epoch in [(mark, mark.step / steps) for mark, steps in marks if steps is not None]:
            row = len(kinds) - kinds.index(mark.kind) - 0.5
            above = axes.get_xaxis_transform() + ScaledTranslation(0, _MARK_IN * row, figure.dpi_scale_trans)
            axes.axvline(epoch, color=color, linewidth=0.7, linestyle=":", zorder=1)
            symbol = _MARK_SYMBOLS[mark.kind]
            axes.plot([epoch], [1.0], transform=above, clip_on=False, marker=symbol, markersize=5, color=color)
    for kind in kinds:
        axes.plot([], [], marker=_MARK_SYMBOLS[kind], markersize=5, linestyle="none", color=GREY, label=kind)


def _label_plainly(axes: Axes) -> None:
    """Numbers as people write them on a logarithmic axis, and enough of them where it spans less than a decade."""
    for formatter, subs in ((axes.yaxis.set_major_formatter, None), (axes.yaxis.set_minor_formatter, (2, 5))):
        plain_numbers = _Sparse(subs)
        formatter(plain_numbers)


class _Sparse(ScalarFormatter):
    """Labels decades, or those multiples of them alone."""

    def __init__(self, multiples: tuple[int, ...] | None) -> None:
        super().__init__()
        self._multiples = multiples

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of x; empty for none."""
        if x <= 0:
            return ""
        leading = round(x / 10 ** np.floor(np.log10(x) + 1e-9))
        return f"{x:.4g}" if self._multiples is None or leading in self._multiples else ""


def _said(quantity: _Quantity, groups: Sequence[Group]) -> str:
    """First and last value of each line."""
    parts = []
    for group in groups:
        found = _together(group, quantity.curve)
        if found is not None:
            epochs, mean, *_ = found
            parts.append(f"{group.label} from {mean[0]:.4g} to {mean[-1]:.4g} after {epochs[-1]:.4g} epochs")
    return "; ".join(parts)
