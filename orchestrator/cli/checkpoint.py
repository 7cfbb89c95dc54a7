"""`dnctl checkpoint`: what a run has saved, and whether it can be believed."""

from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import JsonOption, console, human_bytes, human_time, print_json
from orchestrator.cli.progress import byte_progress
from orchestrator.cli.runs import RunArgument
from orchestrator.errors import CheckpointError, NotFoundError
from orchestrator.run.catalogue import find_run, storage_root
from orchestrator.run.checkpoints import checkpoint_at, is_checkpoint_path
from orchestrator.run.directory import RunDirectory
from orchestrator.run.inspection import Inspected, glance, glance_at_all, steps_per_epoch, to_resume_from
from orchestrator.run.inspection import verify as verify_one

if TYPE_CHECKING:
    from rich.text import Text

app = typer.Typer(no_args_is_help=True)

_STYLES = {"whole": "green", "damaged": "bold red", "not committed": "yellow"}


@app.command(name="list")
def list_checkpoints(run: RunArgument, json_output: JsonOption = False) -> None:
    """The checkpoints of a run, oldest first, by marker, manifest and sizes; `verify` reads every byte."""
    directory = find_run(storage_root(), run)
    seen = glance_at_all(directory)
    if json_output:
        print_json({"run": directory.name, "checkpoints": _documents(seen, directory.path)})
    elif not seen:
        console().print(f"{directory.name} has no checkpoint yet.", markup=False)
    else:
        _print(seen, directory.path)
        console().print(f"every byte of them: dnctl checkpoint verify {directory.name}", style="dim", markup=False)


@app.command()
def verify(
    target: Annotated[str, typer.Argument(metavar="RUN|PATH", help="A run, or the directory of one checkpoint.")],
    json_output: JsonOption = False,
) -> None:
    """Read and hash every byte of a run's checkpoints, or of one. Exits with 7 if one isn't whole."""
    path = Path(target).absolute()
    is_one = is_checkpoint_path(path)
    run = RunDirectory(path.parent.parent) if is_one else find_run(storage_root(), target)
    seen = [glance(checkpoint_at(path))] if is_one else glance_at_all(run)
    if not any(each.verdict != "not committed" for each in seen) and not is_one:
        raise NotFoundError(f"run {run.name} has no checkpoint yet")
    verified = _verified(seen)
    is_whole = all(each.verdict == "whole" or (each.verdict == "not committed" and not is_one) for each in verified)
    resume = None if is_one else to_resume_from(verified)
    if json_output:
        print_json(
            {
                "run": run.name,
                "whole": is_whole,
                "resume": resume.path.name if resume is not None else None,
                "checkpoints": _documents(verified, run.path),
            }
        )
    else:
        _print(verified, run.path)
        if not is_one:
            taken = f"would take {resume.path.name}" if resume is not None else "finds none to go on from"
            console().print(f"A resume {taken}.", markup=False)
    if not is_whole:
        raise typer.Exit(CheckpointError.exit_code)


def _verified(seen: Sequence[Inspected]) -> list[Inspected]:
    total = sum(each.num_bytes or 0 for each in seen if each.verdict == "committed")
    done = 0
    verified = []
    with byte_progress() as advance:

        def on_bytes(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            advance("reading checkpoints", done, total)

        for each in seen:
            verified.append(verify_one(each, on_bytes=on_bytes))
    return verified


def _documents(seen: Sequence[Inspected], run_path: Path) -> list[dict[str, Any]]:
    now, steps = time(), steps_per_epoch(run_path)
    return [each.to_json(now=now, steps_per_epoch=steps) for each in seen]


def _print(seen: Sequence[Inspected], run_path: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    now, steps = time(), steps_per_epoch(run_path)
    table = Table("checkpoint", box=None, pad_edge=False, header_style="bold")
    for heading in ("step", "attempt", "epoch", "size", "age", "top-1 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("is", no_wrap=True)
    for each in seen:
        checkpoint, top1 = each.checkpoint, each.metrics.get("top1")
        table.add_row(
            Text(checkpoint.path.name, no_wrap=True),
            f"{checkpoint.step:,}",
            str(checkpoint.attempt),
            f"{checkpoint.step / steps:.4g}" if steps else "–",
            human_bytes(each.num_bytes) if each.num_bytes is not None else "–",
            human_time(max(now - each.saved_at, 0.0)) if each.saved_at is not None else "–",
            f"{top1:.2f}" if top1 is not None else "–",
            Text(each.verdict, style=_STYLES.get(each.verdict, "")),
        )
    console().print(table)
    for fault in _faults(seen):
        console().print(fault, soft_wrap=True)


def _faults(seen: Sequence[Inspected]) -> "list[Text]":
    from rich.text import Text

    return [Text(each.fault, style="red") for each in seen if each.fault is not None]
