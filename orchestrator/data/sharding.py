"""Writes a data set into shards: tar files in WebDataset's layout, and an index of where in them each image lies.

A sample is two members, NUMBER.jpg (or .png, .webp, .bmp, by what it holds) and NUMBER.cls with its label; the number
is its row in the manifest. Samples lie in a fixed shuffled order, so that readers that go through shards in sequence
see mixed classes; ours read by position. The index is a manifest with three columns more, and is written last: without
it there is no shard set. The same images give the same bytes.
"""

import contextlib
import hashlib
import os
import shutil
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.data.index import Dataset
from orchestrator.data.manifest import Manifest, Rows, ShardIndex, open_manifest, write_manifest
from orchestrator.data.order import epoch_order
from orchestrator.data.shard_set import index_name
from orchestrator.data.source import open_source
from orchestrator.errors import DataError

DEFAULT_SHARD_BYTES: Final = 256 << 20

_BLOCK = 512  # tar's
_END = bytes(2 * _BLOCK)
_EXTENSIONS = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"RIFF", "webp"), (b"BM", "bmp"))
_READ_AHEAD = 256

Progress = Callable[[int, int], None]
"""Told (images written, images in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharded:
    """What write_shards left in a folder."""

    num_shards: int
    num_bytes: int
    written: bool
    """False if it was all there before."""


def write_shards(
    dataset: Dataset, out: Path, *, shard_bytes: int = DEFAULT_SHARD_BYTES, progress: Progress | None = None
) -> Sharded:
    """Write both splits of a data set into a folder. What an earlier, interrupted call left is replaced.

    shard_bytes: a shard is closed before the image that would make it larger.
    Raises DataError if the folder holds other shards, an image can't be read, or the disk is full.
    """
    splits = (dataset.train, dataset.val)
    there = [_open_index(out, manifest.split) for manifest in splits]
    if all(there):
        return _already(out, splits, [index for index in there if index])
    num_images = sum(manifest.num_samples for manifest in splits)
    num_done = 0

    def count() -> None:
        nonlocal num_done
        num_done += 1
        if progress is not None:
            progress(num_done, num_images)

    try:
        out.mkdir(parents=True, exist_ok=True)
        _check_free_space(out, splits)
        written = [_write_split(manifest, out, shard_bytes, count) for manifest in splits]
        for manifest, index in zip(splits, written, strict=True):
            _write_index(manifest, out, index)
    except OSError as error:
        raise DataError(
            f"The shards can't be written to {out}: {error.strerror or error}. Make room, or name another folder, and "
            "call it again; without its index nothing there is taken for a data set."
        ) from error
    return Sharded(
        num_shards=sum(len(index.names) for index in written),
        num_bytes=sum(sum(index.sizes) for index in written),
        written=True,
    )


def _open_index(out: Path, split: str) -> Manifest | None:
    path = out / index_name(split)
    return open_manifest(path, root=out) if path.is_file() else None


def _already(out: Path, splits: Sequence[Manifest], there: Sequence[Manifest]) -> Sharded:
    for manifest, index in zip(splits, there, strict=True):
        if index.fingerprint != manifest.fingerprint:
            raise DataError(f"{out} holds the shards of another data set. Name another folder, or remove it.")
    shards = [index.shards for index in there if index.shards is not None]
    return Sharded(
        num_shards=sum(len(index.names) for index in shards),
        num_bytes=sum(sum(index.sizes) for index in shards),
        written=False,
    )


def _check_free_space(out: Path, splits: Sequence[Manifest]) -> None:
    needed = sum(int(manifest.num_bytes.sum()) + manifest.num_samples * 4 * _BLOCK for manifest in splits)
    free = shutil.disk_usage(out).free
    if free < needed:
        raise DataError(
            f"{out} has {free / 1e9:.1f} GB free and the shards take {needed / 1e9:.1f} GB. Make room, or name another "
            "folder."
        )


def _write_split(manifest: Manifest, out: Path, shard_bytes: int, count: Callable[[], None]) -> ShardIndex:
    n = manifest.num_samples
    shard, offset, crc32 = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.uint32)
    shards: list[_Shard] = []
    with contextlib.ExitStack() as stack:
        for row, data in _read_in_order(manifest, epoch_order(seed=0, epoch=0, num_samples=n)):
            members = (f"{row:08d}.{_extension(data)}", data), (f"{row:08d}.cls", b"%d" % manifest.labels[row])
            if not shards or shards[-1].size + sum(map(_member_size, members)) + len(_END) > shard_bytes:
                if shards:
                    shards[-1].finish()
                shards.append(_Shard(out, f"{manifest.split}-{len(shards):06d}.tar"))
                stack.callback(shards[-1].abandon)
            shard[row], crc32[row] = len(shards) - 1, zlib.crc32(data)
            offset[row] = shards[-1].add(*members[0])
            shards[-1].add(*members[1])
            count()
        if shards:
            shards[-1].finish()
    return ShardIndex(
        names=tuple(written.name for written in shards),
        sizes=tuple(written.size for written in shards),
        sha256=tuple(written.digest.hexdigest() for written in shards),
        shard=shard,
        offset=offset,
        crc32=crc32,
    )


def _read_in_order(manifest: Manifest, order: npt.NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
    """Rows and their images' bytes, read some ahead."""
    source = open_source(manifest)
    readers = ThreadPoolExecutor(source.num_readers, thread_name_prefix="dnctl-read")
    try:
        rows = iter(order.tolist())
        ahead = deque((row, readers.submit(source.read, row)) for row in islice(rows, _READ_AHEAD))
        while ahead:
            row, data = ahead.popleft()
            yield row, data.result()
            ahead.extend((row, readers.submit(source.read, row)) for row in islice(rows, 1))
    finally:
        readers.shutdown(cancel_futures=True)
        source.close()


def _write_index(manifest: Manifest, out: Path, index: ShardIndex) -> None:
    rows = Rows(
        relative_paths=manifest.relative_paths.to_pylist(),
        labels=manifest.labels,
        widths=manifest.widths,
        heights=manifest.heights,
        num_bytes=manifest.num_bytes,
    )
    write_manifest(
        out / index_name(manifest.split),
        rows,
        root=out.absolute(),
        split=manifest.split,
        classes=manifest.classes,
        left_out=manifest.left_out,
        full_decode=manifest.full_decode,
        stamp="",
        shards=index,
    )


class _Shard:
    """A shard that is being written; it appears under its name when it is finished."""

    def __init__(self, out: Path, name: str) -> None:
        self.name = name
        self.size = 0
        self.digest = hashlib.sha256()
        self._path = out / name
        self._aside = out / f".{name}.part"
        self._file = self._aside.open("wb")

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns where its data begin."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        start = self.size + _BLOCK
        self._write(header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % _BLOCK))
        return start

    def finish(self) -> None:
        self._write(_END)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._aside.replace(self._path)

    def abandon(self) -> None:
        """Remove what was written if it isn't finished."""
        self._file.close()
        self._aside.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)


def _member_size(member: tuple[str, bytes]) -> int:
    return _BLOCK + len(member[1]) + -len(member[1]) % _BLOCK


def _extension(data: bytes) -> str:
    return next(extension for signature, extension in _EXTENSIONS if data.startswith(signature))
