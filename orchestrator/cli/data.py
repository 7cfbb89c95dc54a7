"""`dnctl data`: write the demo data set, and look through one of your own."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, print_json
from orchestrator.cli.prepare import prepare
from orchestrator.cli.progress import byte_progress, progress_bar, to_be_gone_on_with
from orchestrator.cli.stats import stats
from orchestrator.cli.verify import verify

if TYPE_CHECKING:
    from orchestrator.data.index import Dataset
    from orchestrator.data.manifest import Manifest

app = typer.Typer(help="Make and check data sets.", no_args_is_help=True)
app.command()(prepare)
app.command()(verify)
app.command()(stats)


class Damaged(StrEnum):
    """What is done about damaged images."""

    REFUSE = "refuse"
    SKIP = "skip"


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="The folder to write; it is made if it isn't there.")] = Path("demo-data"),
    json_output: JsonOption = False,
) -> None:
    """Write a small real data set. It is scikit-learn's handwritten digits as JPEGs in ImageNet layout; no download."""
    from orchestrator.data.prepare.demo import write_demo

    with progress_bar("writing") as progress:
        written = write_demo(out, progress=progress)
    if json_output:
        print_json(
            {
                "root": str(out),
                "train_images": written.num_train_images,
                "val_images": written.num_val_images,
                "classes": written.num_classes,
                "written": written.written,
            }
        )
        return
    happened = "is written to" if written.written else "is already in"
    numbers = f"{written.num_train_images} training and {written.num_val_images} validation images"
    _say(f"The demo data set ({numbers}, {written.num_classes} classes) {happened} {out}.")
    _say(f"Next: dnctl launch demo --set data.root={out}")


@app.command()
def index(
    root: Annotated[
        str, typer.Argument(help="A data set in ImageNet layout, ROOT/train/CLASS/IMAGE and ROOT/val/…, or its shards.")
    ],
    full_decode: Annotated[
        bool, typer.Option("--full-decode", help="Decode every image, instead of looking at the ends of JPEGs.")
    ] = False,
    damaged: Annotated[
        Damaged, typer.Option(help="Damaged images: name them and stop, or leave them out.")
    ] = Damaged.REFUSE,
    json_output: JsonOption = False,
) -> None:
    """Look through a data set once. Finds what is damaged, and keeps the list of its images for all later runs."""
    from orchestrator.data.index import index_dataset

    with progress_bar("looking at images") as progress:
        dataset = index_dataset(root, full_decode=full_decode, damaged=damaged.value, progress=progress)
    if json_output:
        print_json(_as_document(dataset))
        return
    from rich.table import Table

    table = Table()
    table.add_column("split")
    for heading in ("images", "classes", "left out"):
        table.add_column(heading, justify="right")
    for manifest in (dataset.train, dataset.val):
        numbers = (manifest.num_samples, len(manifest.classes), len(manifest.left_out))
        table.add_row(manifest.split, *(f"{number:,}" for number in numbers))
    console().print(table)
    for fault in (*dataset.train.left_out, *dataset.val.left_out):
        _say(f"left out: {fault}")
    _say(f"fingerprint {dataset.fingerprint}")


@app.command()
def shard(
    root: Annotated[Path, typer.Argument(help="A data set in ImageNet layout: ROOT/train/CLASS/IMAGE and ROOT/val/….")],
    out: Annotated[Path, typer.Argument(help="The folder for the shards; it is made if it isn't there.")],
    shard_mb: Annotated[int, typer.Option("--shard-mb", min=1, help="The most that a shard takes, in MB.")] = 256,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Shards written at a time; the number of cores, at most 8, by default.")
    ] = None,
    damaged: Annotated[
        Damaged, typer.Option(help="Damaged images: name them and stop, or leave them out.")
    ] = Damaged.REFUSE,
    json_output: JsonOption = False,
) -> None:
    """Put a data set into tar files, in WebDataset's layout. Runs take them as they take the folder."""
    from orchestrator.data.index import index_dataset
    from orchestrator.data.sharding import write_shards

    with progress_bar("looking at images") as progress:
        dataset = index_dataset(root, damaged=damaged.value, progress=progress)
    with to_be_gone_on_with(), byte_progress() as advance:
        sharded = write_shards(
            dataset,
            out,
            shard_bytes=shard_mb * 10**6,
            num_threads=threads,
            progress=lambda done, total: advance("writing", done, total),
        )
    if json_output:
        print_json(
            {
                "root": str(out),
                "shards": sharded.num_shards,
                "bytes": sharded.num_bytes,
                "images": dataset.train.num_samples + dataset.val.num_samples,
                "fingerprint": dataset.fingerprint,
                "written": sharded.num_shards_written > 0,
                "shards_written": sharded.num_shards_written,
            }
        )
        return
    happened = "written to" if sharded.num_shards_written else "already in"
    _say(f"{sharded.num_shards} shards, {sharded.num_bytes / 1e6:,.1f} MB, {happened} {out}.")
    _say(f"fingerprint {dataset.fingerprint}, as of {root}")
    _say(f"Next: dnctl launch densenet169 --set data.root={out}, or copy them: aws s3 sync {out} s3://BUCKET/NAME")


def _say(line: str) -> None:
    console().print(line, markup=False, soft_wrap=True)


def _as_document(dataset: "Dataset") -> dict[str, object]:
    return {
        "root": str(dataset.train.root),
        "fingerprint": dataset.fingerprint,
        "classes": len(dataset.classes),
        "splits": {manifest.split: _split_document(manifest) for manifest in (dataset.train, dataset.val)},
    }


def _split_document(manifest: "Manifest") -> dict[str, object]:
    return {
        "images": manifest.num_samples,
        "fingerprint": manifest.fingerprint,
        "fully_decoded": manifest.full_decode,
        "left_out": [{"path": fault.path, "problem": fault.problem} for fault in manifest.left_out],
    }
