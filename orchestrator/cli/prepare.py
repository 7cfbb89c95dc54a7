"""`dnctl data prepare`: a data set in ImageNet layout, or in shards, out of its official archives."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, print_json
from orchestrator.cli.progress import byte_progress, to_be_gone_on_with

if TYPE_CHECKING:
    from orchestrator.data.prepare.datasets import Prepared


class DatasetName(StrEnum):
    """What can be prepared."""

    IMAGENET = "imagenet"
    CIFAR10 = "cifar10"
    CIFAR100 = "cifar100"
    SVHN = "svhn"


def prepare(
    dataset: Annotated[DatasetName, typer.Argument(help="The data set.")],
    archives: Annotated[Path, typer.Option(help="The folder that holds the official archives.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it is made if it isn't there.")],
    sums: Annotated[
        Path | None, typer.Option(help="Hold the archives against this file of md5sum, not against the official sums.")
    ] = None,
    shards: Annotated[
        bool, typer.Option("--shards", help="Write shards, tar files that hold many images each, instead of a folder.")
    ] = False,
    shard_mb: Annotated[int, typer.Option("--shard-mb", min=1, help="The most that a shard takes, in MB.")] = 256,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Classes, or shards, written at a time; the number of cores, at most 8, by default."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Make a data set out of its official archives, in ImageNet layout or straight in shards.

    Checks their MD5 sums and the free space first. Can be interrupted: the same command goes on with what is missing.
    """
    from orchestrator.data.prepare.datasets import Request
    from orchestrator.data.prepare.datasets import prepare as prepare_dataset

    request = Request(
        dataset=dataset.value, archives=archives, sums=sums, shard_bytes=shard_mb * 10**6 if shards else None
    )
    with to_be_gone_on_with(), byte_progress() as progress:
        prepared = prepare_dataset(request, out, num_threads=threads, progress=progress)
    units = "shards" if shards else "class folders"
    if json_output:
        print_json(_as_document(out, dataset, prepared, units))
        return
    splits = [f"{sum(classes.values()):,} images in {split}" for split, classes in prepared.num_images.items()]
    there = prepared.num_units - prepared.num_units_written
    before = f" {there:,} of {prepared.num_units:,} {units} were there before." if there else ""
    for line in (
        f"{dataset.value} is in {out}: {', '.join(splits)}, {len(prepared.num_images['train']):,} classes.{before}",
        f"Next: dnctl data verify {out}",
    ):
        console().print(line, markup=False, soft_wrap=True)


def _as_document(out: Path, dataset: DatasetName, prepared: "Prepared", units: str) -> dict[str, object]:
    """units: what counts are of, in words."""
    key = units.replace(" ", "_")
    return {
        "root": str(out),
        "dataset": dataset.value,
        "images": {split: sum(classes.values()) for split, classes in prepared.num_images.items()},
        "classes": len(prepared.num_images["train"]),
        key: prepared.num_units,
        f"{key}_written": prepared.num_units_written,
    }
