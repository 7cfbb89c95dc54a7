"""Makes a report and writes it: report.html, and each figure as a PNG beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Final

from orchestrator.report import pictures as drawn
from orchestrator.report.document import Progress, Report, read_report
from orchestrator.report.page import Pictures, report_page
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory

PAGE: Final = "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A report, and where it lies."""

    report: Report
    html: Path
    figures: Mapping[str, Path]
    missing_figures: Sequence[str]


def write_report(runs: Sequence[RunDirectory], folder: Path, *, progress: Progress) -> Written:
    """Read the runs and write their report into a folder, which is made; what is there of the same names is replaced.

    Raises NotFoundError, or StorageError if a run's state can't be read or the folder not be written.
    """
    report = read_report(runs, now=time(), progress=progress)
    progress("drawing", 0, 3)
    curves, ledger = drawn.curves(report), drawn.ledger(report)
    progress("drawing", 1, 3)
    tradeoffs, undrawn = drawn.tradeoffs(report)
    progress("drawing", 2, 3)
    reuse, unread = drawn.reuse(report, progress=progress)
    missing = [*undrawn, *unread]
    pictures = Pictures(curves=curves, tradeoffs=tradeoffs, reuse=reuse, ledger=ledger, missing=missing)
    files.make_directory(folder, parents=True)
    figures = {}
    for picture in pictures.every:
        figures[picture.name] = folder / f"{picture.name}.png"
        files.write_atomically(figures[picture.name], picture.png)
    html = folder / PAGE
    files.write_atomically(html, report_page(report, pictures).encode())
    progress("drawing", 3, 3)
    return Written(report=report, html=html, figures=figures, missing_figures=missing)
