"""`dnctl report`: runs as one HTML page and PNG figures, held against the paper."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, print_json, stderr
from orchestrator.cli.progress import item_progress
from orchestrator.run.catalogue import find_runs, storage_root
from orchestrator.run.directory import RunDirectory

if TYPE_CHECKING:
    from orchestrator.report.comparison import Compared
    from orchestrator.report.write import Written


def report(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Runs, each by its name, a unique prefix of one, or 'last'; or a sweep's name, for all of its runs.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to; a run's own report/ if left out, storage's for several."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Write curves, tables and figures of runs beside the paper's. One HTML page with everything in it, and PNGs.

    Says how far each run's settings are from the paper's. A run that isn't finished, or of which something is missing,
    is reported as far as it goes.
    """
    from orchestrator.report.document import report_json
    from orchestrator.report.write import write_report

    runs = _find(names)
    with item_progress() as progress:
        written = write_report(runs, _folder(runs, names) if out is None else out, progress=progress)
    if json_output:
        figures = {name: str(path) for name, path in written.figures.items()}
        missing = list(written.missing_figures)
        paths = {"html": str(written.html), "figures": figures, "missing_figures": missing}
        print_json({**paths, **report_json(written.report)})
    else:
        _show(written)


def _find(names: Sequence[str]) -> list[RunDirectory]:
    """The runs that are named, each once."""
    found = {run.path: run for name in names for run in find_runs(storage_root(), name)}
    return list(found.values())


def _folder(runs: Sequence[RunDirectory], names: Sequence[str]) -> Path:
    """The run's own folder; of several, one in the storage that is called after what was asked for."""
    if len(runs) == 1:
        return runs[0].path / "report"
    name = names[0] if len(names) == 1 else f"{runs[0].name}-and-{len(runs) - 1}-more"
    return storage_root() / "reports" / name


def _show(written: "Written") -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    from orchestrator.report.tables import signed, spread_text

    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("run", overflow="fold")
    for heading in ("epochs", "top-1 error %", "paper", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for compared in written.report.groups:
        group, paper = compared.group, compared.paper
        table.add_row(
            Text(group.label),
            f"{group.epochs_done:.4g}",
            spread_text(group.top1_error),
            "–" if paper is None else f"{paper.top1:.2f}",
            signed(compared.difference),
        )
    console().print(table)
    for compared in written.report.groups:
        _show_deviations(compared)
    for name, said in written.report.missing.items():
        for sentence in said:
            stderr().print(f"{name}: {sentence}", markup=False, soft_wrap=True)
    for sentence in written.missing_figures:
        stderr().print(sentence, markup=False, soft_wrap=True)
    figures = len(written.figures)
    console().print(f"{figures} figure{'' if figures == 1 else 's'} as PNG in {written.html.parent}", markup=False)
    console().print(f"Open in a browser: {written.html}", style="bold", markup=False, soft_wrap=True)


def _show_deviations(compared: "Compared") -> None:
    if not compared.deviations:
        if compared.group.numerics is not None:
            console().print(f"{compared.group.label}: the paper's settings, all of them.", markup=False, soft_wrap=True)
        return
    console().print(f"{compared.group.label} is not the paper's run:", markup=False, soft_wrap=True)
    for sentence in compared.deviations:
        console().print(f"  - {sentence}", markup=False)
