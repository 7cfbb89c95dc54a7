"""Error against size: the paper's networks as lines, the runs' as marks with their names."""

from collections.abc import Callable, Sequence
from typing import Final

from matplotlib.axes import Axes

from orchestrator.report.figures.style import (
    COLORS,
    MARKERS,
    Picture,
    drawing,
    legend_below,
    picture,
    plain,
    shortened,
)
from orchestrator.report.network import Cost
from orchestrator.report.tradeoff import Line, Point

_AGAINST: Final[Sequence[tuple[str, str, Callable[[Cost], float]]]] = (
    ("parameters", "parameters, millions", lambda cost: cost.num_parameters / 1e6),
    ("multiply-adds", "multiply-adds of one image, billions", lambda cost: cost.num_multiply_adds / 1e9),
)
_RUNS_COLOR: Final = "#000000"
_LABELLED: Final = 10
"""Lines' points get their names up to so many."""


def tradeoff_pictures(
    setting: str, lines: Sequence[Line], runs: Sequence[Point], *, error: str, name: str
) -> Sequence[Picture]:
    """Two pictures: against parameters and against multiply-adds.

    setting: the data, as it is called. error: what the error is of. name: what the files' names begin with.
    """
    return [_picture(setting, lines, runs, error, f"{name}-{against}", unit, of) for against, unit, of in _AGAINST]


def _picture(
    setting: str,
    lines: Sequence[Line],
    runs: Sequence[Point],
    error: str,
    name: str,
    unit: str,
    of: Callable[[Cost], float],
) -> Picture:
    what = unit.partition(",")[0].removesuffix(" of one image")
    title = f"{setting}: error against {what}"
    with drawing(height_in=3.6) as figure:
        axes = figure.add_subplot()
        for number, line in enumerate(lines):
            _draw_line(axes, line, number, of)
        for number, point in enumerate(runs):
            marker = MARKERS[number % len(MARKERS)]
            label = plain(shortened(point.name))
            axes.plot(
                [of(point.cost)],
                [point.error],
                marker=marker,
                markersize=8,
                markerfacecolor="white",
                linestyle="none",
                color=_RUNS_COLOR,
                label=label,
                zorder=4,
            )
        axes.set(title=title, xlabel=unit, ylabel=error, xscale="log" if _spans_decades(lines, runs, of) else "linear")
        if axes.get_xscale() == "log":
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.margins(x=0.1, y=0.12)
        legend_below(figure, axes)
        said = "; ".join(f"{point.name}: {of(point.cost):.3g}, {point.error:.2f} %" for point in _all(lines, runs))
        return picture(
            figure,
            name=name,
            title=title,
            alternative=f"{title}. {said}",
            caption="Open black symbols are the runs; the others have a printed source." if lines else "",
        )


def _draw_line(axes: Axes, line: Line, number: int, of: Callable[[Cost], float]) -> None:
    color, marker = COLORS[number % (len(COLORS) - 1)], MARKERS[number % len(MARKERS)]
    points = sorted(line.points, key=lambda point: of(point.cost))
    sizes, errors = [of(point.cost) for point in points], [point.error for point in points]
    axes.plot(sizes, errors, color=color, marker=marker, label=line.label)
    if len(points) <= _LABELLED:
        for label, size, error in zip(_short([point.name for point in points]), sizes, errors, strict=True):
            axes.annotate(label, (size, error), xytext=(3, 4), textcoords="offset points", fontsize=7, color=color)


def _short(networks: Sequence[str]) -> Sequence[str]:
    """What tells the networks of a line apart: of densenetbc100_12 and densenetbc250_24, 100, k=12 and 250, k=24."""
    parts = [name.lstrip("abcdefghijklmnopqrstuvwxyz").partition("_") for name in networks]
    has_depths = len({layers for layers, _, _ in parts}) > 1 or len(parts) == 1
    widths = [f"k={width}" if width else "" for _, _, width in parts]
    return [
        ", ".join(part for part in (layers if has_depths else "", width) if part)
        for (layers, _, _), width in zip(parts, widths, strict=True)
    ]


def _spans_decades(lines: Sequence[Line], runs: Sequence[Point], of: Callable[[Cost], float]) -> bool:
    sizes = [of(point.cost) for point in _all(lines, runs)]
    return max(sizes) > 10 * min(sizes)


def _all(lines: Sequence[Line], runs: Sequence[Point]) -> list[Point]:
    return [*(point for line in lines for point in line.points), *runs]
