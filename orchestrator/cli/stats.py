"""`dnctl data stats`: how large a data set's images are, and the mean and deviation of its channels."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, human_bytes, print_json
from orchestrator.cli.progress import item_progress

if TYPE_CHECKING:
    from orchestrator.data.stats import Histogram, Stats

_BAR_WIDTH = 32


def stats(
    root: Annotated[
        str, typer.Argument(help="A data set in ImageNet layout, ROOT/train/CLASS/IMAGE and ROOT/val/…, or its shards.")
    ],
    images: Annotated[
        int | None,
        typer.Option(min=1, help="Training images to decode for mean and deviation, evenly spaced; all by default."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Sizes and aspect ratios of a data set's images, and the mean and standard deviation of its channels."""
    from orchestrator.data.stats import dataset_stats

    with item_progress() as progress:
        found = dataset_stats(root, max_images=images, progress=progress)
    if json_output:
        print_json(_as_document(root, found))
    else:
        _print(found)


def _print(found: "Stats") -> None:
    for name, sizes in (("train", found.train), ("val", found.val)):
        pixels = [f"{width:g}x{height:g}" for width, height in (sizes.smallest, sizes.median, sizes.largest)]
        _say(
            f"{name}: {sizes.num_images:,} images of {human_bytes(sizes.mean_bytes)} on average; "
            f"smallest {pixels[0]}, median {pixels[1]}, largest {pixels[2]}"
        )
        _say("  short side, pixels")
        _print_histogram(sizes.short_side, "{:g}")
        _say("  width / height")
        _print_histogram(sizes.aspect, "{:.3g}")
    channels = found.channels
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (channels.mean, channels.std))
    _say(f"channels of {channels.num_images:,} training images, red, green and blue, each image weighing the same:")
    _say(f"  data.mean=[{mean}]")
    _say(f"  data.std=[{std}]")


def _print_histogram(histogram: "Histogram", number: str) -> None:
    """A line for each bin from the first that isn't empty to the last."""
    filled = [bin_number for bin_number, count in enumerate(histogram.counts) if count]
    total, most = sum(histogram.counts), max(histogram.counts)
    for bin_number in range(filled[0], filled[-1] + 1):
        low, high = histogram.edges[bin_number : bin_number + 2]
        edges = f"{number.format(low)} –" + ("" if math.isinf(high) else f" {number.format(high)}")
        count = histogram.counts[bin_number]
        bar = "━" * math.ceil(_BAR_WIDTH * count / most)
        _say(f"    {edges:<13} {100 * count / total:5.1f} %  {count:>9,}  {bar}")


def _say(line: str) -> None:
    console().print(line.rstrip(), markup=False, soft_wrap=True)


def _as_document(root: str, found: "Stats") -> dict[str, object]:
    document = {"root": root, **asdict(found)}
    for split in ("train", "val"):
        for name in ("short_side", "aspect"):
            histogram = document[split][name]
            histogram["edges"] = [None if math.isinf(edge) else edge for edge in histogram["edges"]]
    return document
