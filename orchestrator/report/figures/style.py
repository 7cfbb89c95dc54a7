"""How figures look: sizes, fonts, colours that the colour-blind can tell apart, and PNGs that are light.

A figure is as wide as a phone's page, 5 inches of which text has 9 points; on wider pages they stand side by side.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, without the yellow that nobody sees on white."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
GREY: Final = "#5A5A5A"
WIDTH_IN: Final = 5.0
HEIGHT_IN: Final = 2.9
DOTS_PER_INCH: Final = 200
_NUM_COLORS: Final = 128

_STYLE: Final[Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "figure.facecolor": "white",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure as it is shown."""

    name: str
    """Its file's, without .png."""
    title: str
    png: bytes
    alternative: str
    """What it shows, for those who can't see it."""
    width: int
    height: int
    """In pixels; `DOTS_PER_INCH` of them an inch."""
    caption: str = ""


@contextmanager
def drawing(width_in: float = WIDTH_IN, height_in: float = HEIGHT_IN) -> Iterator[Figure]:
    """An empty figure, and our style while it is drawn."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def picture(figure: Figure, *, name: str, title: str, alternative: str, caption: str = "") -> Picture:
    """The figure as a PNG of few colours. To be called while it is `drawing`."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH)
    image = Image.open(drawn).convert("RGB").quantize(_NUM_COLORS, dither=Image.Dither.NONE)
    packed = BytesIO()
    image.save(packed, format="png", optimize=True)
    return Picture(
        name=name,
        title=title,
        png=packed.getvalue(),
        alternative=alternative,
        width=image.width,
        height=image.height,
        caption=caption,
    )


def legend_below(figure: Figure, axes: Axes) -> None:
    """The legend of the axes underneath them, in as many columns as its texts leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    longest = max(map(len, labels))
    figure.legend(handles, labels, loc="outside lower center", ncols=1 if longest > 34 else 2 if longest > 17 else 3)


def plain(label: str) -> str:
    """Text that matplotlib draws as it stands: it takes what is between two dollar signs for a formula, and leaves out
    of legends what begins with an underscore."""
    return label.replace("$", r"\$").lstrip("_") or "?"


def shortened(label: str, length: int = 48) -> str:
    """A label that fits: its middle left out if it is too long."""
    half = (length - 1) // 2
    return label if len(label) <= length else f"{label[:half]}…{label[-half:]}"
