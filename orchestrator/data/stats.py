"""Statistics of a data set: how large its images are, and the mean and standard deviation of its channels.

Sizes come from the manifests. Mean and deviation take decoding; every image weighs the same, however large it is, as
in training. They don't depend on how many threads computed them.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchestrator.data.image import BadImageError, decode_rgb, quiet_pil
from orchestrator.data.index import default_threads, index_dataset
from orchestrator.data.inspection import Progress
from orchestrator.data.manifest import Manifest
from orchestrator.data.source import Source, open_source, unreadable

SIDE_EDGES = (0, 32, 64, 128, 224, 256, 320, 384, 448, 512, 768, 1024, 2048, math.inf)
"""Pixels of the short side."""
ASPECT_EDGES = (0, 1 / 2, 9 / 16, 2 / 3, 3 / 4, 0.9, 1.1, 4 / 3, 3 / 2, 16 / 9, 2, math.inf)
"""Width over height."""

_IMAGES_PER_TASK = 32
_LEVELS = np.arange(256, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many values lie between which edges."""

    edges: tuple[float, ...]
    """One more than there are counts. The lower edge belongs to a bin, the upper one to the next."""
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the images of a split are."""

    num_images: int
    mean_bytes: float
    smallest: tuple[int, int]
    """Width and height of the image with the fewest pixels."""
    median: tuple[float, float]
    """The median width and the median height."""
    largest: tuple[int, int]
    """Width and height of the image with the most pixels."""
    short_side: Histogram
    aspect: Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Mean and standard deviation of red, green and blue, of values in [0, 1]."""

    num_images: int
    """That were decoded."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Statistics of a data set."""

    train: Sizes
    val: Sizes
    channels: Channels
    """Of training images."""


def dataset_stats(
    root: str | Path,
    *,
    max_images: int | None = None,
    num_threads: int | None = None,
    progress: Callable[[str, int, int], None] = lambda doing, done, total: None,
) -> Stats:
    """The statistics of a data set.

    max_images: training images to decode, evenly spaced over the manifest and so over the classes; all if None.
    progress: told (what is being done, images done, images in all).
    Raises DataError if the data set can't be used or an image turns out to be damaged.
    """
    threads = num_threads or default_threads()
    dataset = index_dataset(root, num_threads=threads, progress=partial(progress, "looking at images"))
    return Stats(
        train=sizes_of(dataset.train),
        val=sizes_of(dataset.val),
        channels=channels_of(dataset.train, max_images, threads, partial(progress, "decoding images")),
    )


def sizes_of(manifest: Manifest) -> Sizes:
    """How large the images of a manifest are."""
    sizes = np.stack([manifest.widths, manifest.heights], axis=1).astype(np.int64)
    areas = sizes.prod(axis=1)
    smallest, largest = sizes[areas.argmin()].tolist(), sizes[areas.argmax()].tolist()
    width, height = np.median(sizes, axis=0).tolist()
    return Sizes(
        num_images=len(sizes),
        mean_bytes=float(manifest.num_bytes.mean()),
        smallest=(smallest[0], smallest[1]),
        median=(width, height),
        largest=(largest[0], largest[1]),
        short_side=_histogram(sizes.min(axis=1), SIDE_EDGES),
        aspect=_histogram(sizes[:, 0] / sizes[:, 1], ASPECT_EDGES),
    )


def _histogram(values: npt.NDArray[np.integer] | npt.NDArray[np.floating], edges: Sequence[float]) -> Histogram:
    bins = np.digitize(values, edges) - 1
    counts = np.bincount(bins, minlength=len(edges) - 1)
    return Histogram(edges=tuple(edges), counts=tuple(counts.tolist()))


def channels_of(manifest: Manifest, max_images: int | None, num_threads: int, progress: Progress) -> Channels:
    """Mean and deviation over the images of a manifest. Arguments and errors as for dataset_stats."""
    num_images = min(max_images or manifest.num_samples, manifest.num_samples)
    indices = np.arange(num_images) * manifest.num_samples // num_images
    tasks = np.split(indices, range(_IMAGES_PER_TASK, num_images, _IMAGES_PER_TASK))

    source = open_source(manifest)

    def moments(task: npt.NDArray[np.int64]) -> list[npt.NDArray[np.float64]]:
        return [_moments(manifest, source, int(index)) for index in task]

    found: list[npt.NDArray[np.float64]] = []
    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="dnctl-stats")
    try:
        with quiet_pil():
            for of_task in executor.map(moments, tasks):
                found += of_task
                progress(len(found), num_images)
    finally:
        executor.shutdown(cancel_futures=True)
        source.close()
    columns = np.stack(found).reshape(num_images, 6).T
    # fsum rounds once, whatever the order of its terms.
    r, g, b, rr, gg, bb = (math.fsum(column.tolist()) / num_images for column in columns)
    return Channels(
        num_images=num_images,
        mean=(r, g, b),
        std=(math.sqrt(max(0.0, rr - r * r)), math.sqrt(max(0.0, gg - g * g)), math.sqrt(max(0.0, bb - b * b))),
    )


def _moments(manifest: Manifest, source: Source, index: int) -> npt.NDArray[np.float64]:
    """float64[2, 3]: the mean of an image's values in [0, 1], and of their squares, by channel."""
    try:
        image = decode_rgb(source.read(index), manifest.header(index))
    except BadImageError as error:
        raise unreadable(manifest.path(index), error) from error
    levels = np.array(image.histogram(), dtype=np.int64).reshape(3, 256)  # exact, and no copy of the pixels
    num_pixels = image.width * image.height
    return np.stack([levels @ _LEVELS / (255 * num_pixels), levels @ _LEVELS**2 / (255**2 * num_pixels)])
