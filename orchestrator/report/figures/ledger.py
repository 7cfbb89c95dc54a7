"""Where the wall time of runs went: a bar a run, a colour for each thing that time went into."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from matplotlib.figure import Figure

from orchestrator.report.figures.style import WIDTH_IN, Picture, drawing, picture, plain, shortened
from orchestrator.run.ledger import Ledger

_LOOKS: Final[Mapping[str, tuple[str, str, str]]] = {
    "compute": ("computing", "#0072B2", ""),
    "data": ("waiting for images", "#56B4E9", ""),
    "communication": ("waiting for workers", "#009E73", ""),
    "evaluation": ("evaluating", "#CC79A7", ""),
    "checkpoint": ("saving checkpoints", "#E69F00", ""),
    "recomputation": ("steps done again", "#D55E00", "////"),
    "start": ("starting workers", "#F0E442", "...."),
    "queue": ("queued", "#999999", "xxxx"),
    "idle": ("nobody had it going", "#DDDDDD", ""),
}
"""Of each entry of the ledger: what it is called, colour and hatching; what counts comes first."""
LABELS: Final[Mapping[str, str]] = {entry: label for entry, (label, _, _) in _LOOKS.items()}
_BAR_IN: Final = 0.34


def ledger_picture(ledgers: Sequence[tuple[str, Ledger]]) -> Picture | None:
    """Bars of (run, its ledger), each in percent of its own wall time; None if no time has passed yet."""
    spent = [(name, ledger) for name, ledger in ledgers if ledger.wall_s > 0]
    if not spent:
        return None
    with drawing(WIDTH_IN, 1.7 + _BAR_IN * len(spent)) as figure:
        _draw(figure, spent)
        return picture(
            figure,
            name="ledger",
            title="Where the wall time went",
            alternative="; ".join(f"{name}: {_said(ledger)}" for name, ledger in spent),
            caption="Goodput is what went into steps and evaluations that count: the first four.",
        )


def _draw(figure: Figure, spent: Sequence[tuple[str, Ledger]]) -> None:
    axes = figure.add_subplot()
    rows = range(len(spent))
    left = [0.0] * len(spent)
    for entry, (label, color, hatch) in _LOOKS.items():
        shares = [100 * max(asdict(ledger)[entry], 0.0) / ledger.wall_s for _, ledger in spent]
        if any(shares):
            axes.barh(rows, shares, left=left, color=color, hatch=hatch, edgecolor="white", linewidth=0.5, label=label)
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.set(title="Where the wall time went", xlabel="% of wall time", xlim=(0, 100))
    axes.set_yticks(list(rows), [plain(shortened(name, 24)) for name, _ in spent])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)


def _said(ledger: Ledger) -> str:
    parts = [
        f"{label} {100 * seconds / ledger.wall_s:.1f} %"
        for entry, label in LABELS.items()
        if (seconds := asdict(ledger)[entry]) > 0
    ]
    return ", ".join(parts)
