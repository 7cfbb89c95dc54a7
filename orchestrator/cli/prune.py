"""`dnctl prune`: old runs and checkpoints that nothing needs any more, deleted after a question."""

import re
import sys
from collections.abc import Sequence
from time import time
from typing import Annotated

import typer

from orchestrator.cli.output import JsonOption, console, human_bytes, human_time, print_json, stderr
from orchestrator.errors import UsageError
from orchestrator.run.catalogue import find_run, list_runs, storage_root
from orchestrator.run.prune import (
    Deletion,
    Kept,
    delete,
    finish_deletions,
    named_runs,
    old_runs,
    superseded_checkpoints,
    whole_runs,
)

DEFAULT_AGE = "30d"
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def prune(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]…", help="These alone, however old; LOST ones, too.")
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="AGE", help="What ended so long ago: 12h, 30d, 8w. 30d if nothing else is said."
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", min=0, help="All but the N runs that ended last.", show_default=False),
    ] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Checkpoints that a newer one supersedes, instead of whole runs.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Delete old runs that have ended, or superseded checkpoints; shows what and how large, and asks first.

    A run that didn't succeed but has a checkpoint can be resumed: it goes only if it is named. With --checkpoints the
    newest whole checkpoint and the best one stay.
    """
    now = time()
    if runs and (older_than is not None or keep is not None):
        raise UsageError("--older-than and --keep choose among all runs; leave them out, or the names")
    if not (dry_run or yes or someone_is_there()):
        raise UsageError("nobody is here to be asked whether this may be deleted: add --yes, or --dry-run to look")
    root = storage_root()
    kept: list[Kept] = []
    if runs:
        statuses = named_runs([find_run(root, name) for name in runs], among=list_runs(root), now=now)
    else:
        age = DEFAULT_AGE if older_than is None and keep is None else older_than or "0m"
        statuses, kept = old_runs(list_runs(root), before=now - _seconds(age), keep=keep or 0, now=now)
    if checkpoints:
        deletions = superseded_checkpoints(statuses)
    else:
        deletions, resumable = whole_runs(statuses, are_named=bool(runs))
        kept += resumable
    if not json_output:
        _show(deletions, kept, now=now)
    agreed = dry_run or yes or not deletions or typer.confirm(_question(deletions), err=True)
    if not dry_run and agreed:
        finish_deletions(root)
        for deletion in deletions:
            delete(deletion)
    if json_output:
        print_json(_document(deletions, kept, is_done=agreed and not dry_run))
    elif deletions and not dry_run:
        size = human_bytes(sum(deletion.num_bytes for deletion in deletions))
        console().print(f"{size} are free." if agreed else "Nothing was deleted.")


def someone_is_there() -> bool:
    """Whether a question finds somebody to answer it."""
    return sys.stdin.isatty()


def _seconds(age: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", age)
    if match is None:
        raise UsageError(f"--older-than {age}: allowed: a number and m, h, d or w, such as 12h or 30d")
    return float(match[1]) * _UNITS_S[match[2]]


def _question(deletions: Sequence[Deletion]) -> str:
    what = "checkpoint" if deletions[0].checkpoint is not None else "run"
    size = human_bytes(sum(deletion.num_bytes for deletion in deletions))
    return f"Delete {len(deletions)} {what}{'' if len(deletions) == 1 else 's'}, {size}, for good?"


def _show(deletions: Sequence[Deletion], kept: Sequence[Kept], *, now: float) -> None:
    if not deletions:
        console().print("Nothing to delete.")
    for deletion in deletions:
        what = deletion.run.name + (f"  {deletion.checkpoint}" if deletion.checkpoint is not None else "")
        age = human_time(max(now - deletion.ended_at, 0.0))
        console().print(
            f"{what}  {deletion.state}  ended {age} ago  {human_bytes(deletion.num_bytes)}",
            markup=False,
            soft_wrap=True,
        )
    for each in kept:
        stderr().print(f"kept: {each.run}: {each.why}", markup=False, soft_wrap=True)


def _document(deletions: Sequence[Deletion], kept: Sequence[Kept], *, is_done: bool) -> dict[str, object]:
    return {
        "is_done": is_done,
        "bytes": sum(deletion.num_bytes for deletion in deletions),
        "deletions": [
            {
                "run": deletion.run.name,
                "checkpoint": deletion.checkpoint,
                "path": str(deletion.path),
                "state": str(deletion.state),
                "ended_at": deletion.ended_at,
                "bytes": deletion.num_bytes,
            }
            for deletion in deletions
        ],
        "kept": [{"run": each.run, "why": each.why} for each in kept],
    }
