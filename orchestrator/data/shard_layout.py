"""Where in which shard each image of a split will lie, known from the images' sizes alone, before any of them is read.

A shard is a tar file in WebDataset's layout. A sample is two members, NUMBER.jpg (or .png, .webp, .bmp, by what it
holds) and NUMBER.cls with its label; the number is its row in the manifest. Samples lie in a fixed shuffled order, so
that readers that go through shards in sequence see mixed classes; ours read by position.
"""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.data.manifest import Integers
from orchestrator.data.order import epoch_order

DEFAULT_SHARD_BYTES: Final = 256 << 20

END: Final = bytes(2 * tarfile.BLOCKSIZE)
"""What a tar file ends with."""

_EXTENSIONS = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"RIFF", "webp"), (b"BM", "bmp"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """The shards of a split."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    """In bytes."""
    rows: tuple[npt.NDArray[np.int64], ...] = field(repr=False)
    """Of each shard, the rows of its samples in their order."""
    shard: npt.NDArray[np.int32] = field(repr=False)
    """[n]: of each row, the position of its shard in `names`."""
    offset: npt.NDArray[np.int64] = field(repr=False)
    """[n]: of each row, where the image's bytes begin in the shard."""


def lay_out(split: str, labels: Integers, num_bytes: Integers, *, shard_bytes: int) -> Layout:
    """The layout of a split. A shard is closed before the sample that would make it larger than `shard_bytes`."""
    n = len(labels)
    order = epoch_order(seed=0, epoch=0, num_samples=n)
    image_sizes = _member_size(np.asarray(num_bytes, dtype=np.int64))
    label_sizes = _member_size(np.char.str_len(np.asarray(labels).astype("U")).astype(np.int64))
    offset = np.empty(n, np.int64)
    starts: list[int] = []
    sizes: list[int] = []
    size = shard_bytes + 1
    for position, row, image_size, label_size in zip(
        range(n), order.tolist(), image_sizes[order].tolist(), label_sizes[order].tolist(), strict=True
    ):
        if size + image_size + label_size + len(END) > shard_bytes:
            if starts:
                sizes.append(size + len(END))
            starts.append(position)
            size = 0
        offset[row] = size + tarfile.BLOCKSIZE
        size += image_size + label_size
    if starts:
        sizes.append(size + len(END))
    rows = tuple(np.split(order, starts[1:])) if starts else ()
    shard = np.empty(n, np.int32)
    for number, of_shard in enumerate(rows):
        shard[of_shard] = number
    return Layout(
        names=tuple(f"{split}-{number:06d}.tar" for number in range(len(rows))),
        sizes=tuple(sizes),
        rows=rows,
        shard=shard,
        offset=offset,
    )


def sample_in_tar(row: int, image: bytes, label: int) -> Iterator[bytes]:
    """A sample as it stands in a shard, in pieces."""
    yield from _member(f"{row:08d}.{_extension(image)}", image)
    yield from _member(f"{row:08d}.cls", b"%d" % label)


def _member(name: str, data: bytes) -> Sequence[bytes]:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    return header.tobuf(tarfile.USTAR_FORMAT), data, bytes(-len(data) % tarfile.BLOCKSIZE)


def _member_size(num_bytes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    sizes: npt.NDArray[np.int64] = tarfile.BLOCKSIZE + num_bytes + -num_bytes % tarfile.BLOCKSIZE
    return sizes


def _extension(data: bytes) -> str:
    return next(extension for signature, extension in _EXTENSIONS if data.startswith(signature))
