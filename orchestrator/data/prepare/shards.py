"""Puts the parts of a data set straight into shards, each image read once from where it lies in its archive.

What comes out is what `dnctl data shard` makes of the data set's folder, byte for byte. So archives are read in the
order of the shards, which is shuffled.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from orchestrator.data.folder import faults_error
from orchestrator.data.image import inspect_encoded
from orchestrator.data.prepare.archives import BytesDone
from orchestrator.data.prepare.parts import Images, Part
from orchestrator.data.shard_writer import Split, Written, write_shard_set

_ADVICE = (
    "The loaders can't use what is named. To leave it out, prepare a folder (without --shards), then: dnctl data shard "
    "FOLDER OUT --damaged skip."
)


def write_parts_as_shards(
    root: Path,
    parts: Sequence[Part],
    *,
    shard_bytes: int,
    num_threads: int,
    listing: BytesDone,
    writing: BytesDone,
) -> Written:
    """Write parts into shards, or go on with it.

    listing, writing: told of the bytes whose members are known, and of the bytes of shards that are written.
    Raises DataError if an archive isn't as it should be, an image can't be used, or there is no room; and OSError.
    """
    images = _open_all(parts, num_threads, listing)
    splits = [_split(name, parts, images) for name in ("train", "val")]
    written = write_shard_set(splits, root, shard_bytes=shard_bytes, num_threads=num_threads, progress=writing)
    if written.faults:
        raise faults_error(root, sorted(written.faults, key=lambda fault: fault.path), _ADVICE)
    return written


def _open_all(parts: Sequence[Part], num_threads: int, listing: BytesDone) -> list[Images]:
    num_bytes, num_done = sum(part.num_bytes for part in parts), 0
    opened = []
    with ThreadPoolExecutor(num_threads, thread_name_prefix="dnctl-list") as executor:
        futures = [executor.submit(part.open) for part in parts]
        try:
            for part, future in zip(parts, futures, strict=True):
                opened.append(future.result())
                num_done += part.num_bytes
                listing(num_done, num_bytes)
        finally:
            executor.shutdown(cancel_futures=True)
    return opened


def _split(name: str, parts: Sequence[Part], opened: Sequence[Images]) -> Split:
    chosen = [(part, images) for part, images in zip(parts, opened, strict=True) if part.split == name]
    counts = [len(images.names) for _, images in chosen]
    first = np.cumsum([0, *counts[:-1]])
    labels = np.repeat(np.arange(len(chosen)), counts)

    def read(row: int) -> bytes:
        label = int(labels[row])
        _, images = chosen[label]
        return images.read(row - int(first[label]))

    return Split(
        name=name,
        classes=[part.class_name for part, _ in chosen],
        relative_paths=[f"{part.class_name}/{file}" for part, images in chosen for file in images.names],
        labels=labels,
        num_bytes=np.concatenate([np.asarray(images.num_bytes, dtype=np.int64) for _, images in chosen]),
        read=read,
        look=lambda row, image: inspect_encoded(image, full_decode=False),
    )
