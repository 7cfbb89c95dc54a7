"""Curves as lines of text, drawn with braille characters: eight dots a cell, legible without colour."""

from collections.abc import Callable
from itertools import pairwise

from orchestrator.monitor.curve import Curve

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the braille block by row and column of a cell (Unicode chapter 21.1)."""
_LABEL_WIDTH = 8


def draw(
    curve: Curve, *, width: int, height: int, label: Callable[[float], str], lowest: float | None = None
) -> list[str]:
    """Lines of a chart, `height` of `width` characters each; the highest and the lowest y stand at its left.

    lowest: where the chart begins; by default at the lowest y. A curve without points is an empty chart.
    """
    low = min([*curve.y, *([lowest] if lowest is not None else [])], default=0.0)
    columns = max(width - _LABEL_WIDTH - 1, 1)
    cells = [[0] * columns for _ in range(height)]
    for x, y in _path(curve, low, 2 * columns, 4 * height):
        cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    labels = [""] * height
    if curve.y:
        labels[-1], labels[0] = label(low), label(max(curve.y))
    return [
        f"{text[:_LABEL_WIDTH]:>{_LABEL_WIDTH}}│" + "".join(chr(0x2800 + cell) for cell in row)
        for text, row in zip(labels, cells, strict=True)
    ]


def _path(curve: Curve, low: float, num_columns: int, num_rows: int) -> list[tuple[int, int]]:
    """Dots (column, row from the top) of the line through all points."""
    if not curve.x:
        return []
    left, right, high = curve.x[0], curve.x[-1], max(curve.y)
    corners = [
        (
            round((num_columns - 1) * ((x - left) / (right - left) if right > left else 0.0)),
            round((num_rows - 1) * ((high - y) / (high - low) if high > low else 0.5)),
        )
        for x, y in zip(curve.x, curve.y, strict=True)
    ]
    dots = [corners[0]]
    for start, end in pairwise(corners):
        num_dots = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
        dots += [
            (
                start[0] + round((end[0] - start[0]) * dot / num_dots),
                start[1] + round((end[1] - start[1]) * dot / num_dots),
            )
            for dot in range(1, num_dots + 1)
        ]
    return dots


def bar(share: float, width: int) -> str:
    """A bar of `width` characters of which a share from 0 to 1 is filled, legible without colour."""
    filled = round(width * min(max(share, 0.0), 1.0))
    return "█" * filled + "░" * (width - filled)
