"""Puts a data set that was indexed, a folder or other shards, into shards. See shard_writer.py."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from orchestrator.data.folder import printable
from orchestrator.data.image import ImageHeader
from orchestrator.data.index import Dataset
from orchestrator.data.manifest import Manifest
from orchestrator.data.prepare.record import FOLDER, preparing
from orchestrator.data.shard_layout import DEFAULT_SHARD_BYTES
from orchestrator.data.shard_writer import Progress, Split, complete_shard_set, write_shard_set
from orchestrator.data.source import open_source
from orchestrator.data.space import cannot_write
from orchestrator.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharded:
    """What write_shards left in a folder."""

    num_shards: int
    num_bytes: int
    num_shards_written: int
    """Those that weren't there before."""


def write_shards(
    dataset: Dataset,
    out: Path,
    *,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> Sharded:
    """Write both splits of a data set into a folder, or go on with what an earlier, interrupted call left.

    shard_bytes: a shard is closed before the image that would make it larger.
    num_threads: shards written at a time; as many as there are cores, and at most 8, if None.
    Raises DataError if the folder holds other shards or is in use, an image can't be read, or the disk is full.
    """
    manifests = (dataset.train, dataset.val)
    _check_out(out)
    try:
        with preparing(out), ExitStack() as sources:
            there = complete_shard_set(out, [manifest.split for manifest in manifests])
            if there is not None:
                return _already(out, manifests, there)
            written = write_shard_set(
                [_split(manifest, sources) for manifest in manifests],
                out,
                shard_bytes=shard_bytes,
                num_threads=num_threads or default_threads(),
                progress=progress or (lambda done, total: None),
            )
    except OSError as error:
        raise cannot_write(out, error) from error
    return Sharded(
        num_shards=written.num_shards, num_bytes=written.num_bytes, num_shards_written=written.num_shards_written
    )


def default_threads() -> int:
    """Shards, or class folders, written at a time."""
    return min(8, os.cpu_count() or 1)


def _check_out(out: Path) -> None:
    """Raise DataError if a folder holds anything but shards."""
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if others := sorted(name for name in names - {FOLDER} if not name.endswith((".tar", ".index.arrow"))):
        raise DataError(f"{out} holds {printable(others[0])}, which is no part of a shard set. Name another folder.")


def _split(manifest: Manifest, sources: ExitStack) -> Split:
    source = open_source(manifest)
    sources.callback(source.close)

    def look(row: int, _: bytes) -> ImageHeader:
        return manifest.header(row)

    return Split(
        name=manifest.split,
        classes=manifest.classes,
        relative_paths=manifest.relative_paths.to_pylist(),
        labels=manifest.labels,
        num_bytes=manifest.num_bytes,
        read=source.read,
        look=look,
        left_out=manifest.left_out,
        full_decode=manifest.full_decode,
    )


def _already(out: Path, manifests: tuple[Manifest, ...], there: list[Manifest]) -> Sharded:
    for manifest, index in zip(manifests, there, strict=True):
        if index.fingerprint != manifest.fingerprint:
            raise DataError(f"{out} holds the shards of another data set. Name another folder, or remove it.")
    shards = [index.shards for index in there if index.shards is not None]
    return Sharded(
        num_shards=sum(len(index.names) for index in shards),
        num_bytes=sum(sum(index.sizes) for index in shards),
        num_shards_written=0,
    )
