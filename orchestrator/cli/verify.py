"""`dnctl data verify`: whether a data set is what it should be."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, human_bytes, print_json
from orchestrator.cli.progress import progress_bar

if TYPE_CHECKING:
    from orchestrator.data.verify import Report

_MAX_LINES = 20
_MAX_NAMES = 3
INVALID = 2


def verify(
    root: Annotated[
        str, typer.Argument(help="A data set in ImageNet layout, ROOT/train/CLASS/IMAGE and ROOT/val/…, or its shards.")
    ],
    devkit: Annotated[
        Path | None,
        typer.Option(help="ImageNet's development kit (.tar.gz): how many images each class has to have."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Decode and hash every image of a data set, and count its classes. Exits with 2 if anything isn't as it should be.

    Counts are held against the archives that it was prepared from, the development kit given, or what is published of
    ImageNet. Duplicates are told, and are no fault.
    """
    from orchestrator.data.verify import verify_dataset

    with progress_bar("decoding images") as progress:
        report = verify_dataset(root, devkit=devkit, progress=progress)
    if json_output:
        print_json(_as_document(root, report))
    else:
        _print(report)
    if report.faults:
        raise typer.Exit(INVALID)


def _print(report: "Report") -> None:
    from rich.table import Table

    table = Table("split")
    for heading in ("images", "classes", "size"):
        table.add_column(heading, justify="right")
    for name, split in report.splits.items():
        table.add_row(name, f"{split.num_images:,}", f"{split.num_classes:,}", human_bytes(split.num_bytes))
    console().print(table)
    held_against = report.expectation.source if report.expectation else "nothing: nobody says how many there should be"
    _say(f"counts       held against {held_against}")
    _say(f"class order  {report.order}")
    _say(f"duplicates   {_duplicates_in_words(report.duplicates)}")
    _say_some([f"  {_group_in_words(paths)}" for paths in report.duplicates], 5)
    _say(f"contents     {report.contents}")
    if report.fingerprint is not None:
        _say(f"fingerprint  {report.fingerprint}")
        _say("Every image was decoded; nothing is wrong.")
        return
    _say(f"{len(report.faults):,} faults:" if len(report.faults) > 1 else "1 fault:")
    _say_some([f"  {fault}" for fault in report.faults], _MAX_LINES)


def _duplicates_in_words(duplicates: Sequence[tuple[str, ...]]) -> str:
    if not duplicates:
        return "none"
    kinds = Counter(_kind(paths) for paths in duplicates)
    counted = ", ".join(f"{kinds[kind]:,} {kind}" for kind in _KINDS if kinds[kind])
    groups = "1 group" if len(duplicates) == 1 else f"{len(duplicates):,} groups"
    return f"{sum(map(len, duplicates)):,} files in {groups}: {counted}"


def _group_in_words(paths: tuple[str, ...]) -> str:
    rest = len(paths) - _MAX_NAMES
    return " = ".join(paths[:_MAX_NAMES]) + (f", and {rest:,} more" if rest > 0 else "")


_KINDS = ("in several splits", "in several classes", "within a class")


def _kind(paths: tuple[str, ...]) -> str:
    splits, classes = ({path.split("/")[part] for path in paths} for part in (0, 1))
    return _KINDS[0] if len(splits) > 1 else _KINDS[1] if len(classes) > 1 else _KINDS[2]


def _say_some(lines: Sequence[str], limit: int) -> None:
    for line in lines[:limit]:
        _say(line)
    if len(lines) > limit:
        _say(f"  … and {len(lines) - limit:,} more; --json has all")


def _say(line: str) -> None:
    console().print(line, markup=False, soft_wrap=True)


def _as_document(root: str, report: "Report") -> dict[str, object]:
    return {
        "root": root,
        "valid": not report.faults,
        "fingerprint": report.fingerprint,
        "contents": report.contents,
        "splits": {
            name: {"images": split.num_images, "classes": split.num_classes, "bytes": split.num_bytes}
            for name, split in report.splits.items()
        },
        "counts_held_against": report.expectation.source if report.expectation else None,
        "class_order": report.order,
        "faults": [{"path": fault.path, "problem": fault.problem} for fault in report.faults],
        "duplicates": [list(paths) for paths in report.duplicates],
    }
