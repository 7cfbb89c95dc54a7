"""The manifest of a split: a table with the path, label, width, height and size in bytes of every image.

It is an Arrow file of one record batch, memory-mapped: opening 1.28 million rows reads its header, and the ranks of a
machine share its pages. Row numbers are the sample indices that orders and draws are functions of. A manifest never
changes; a new one is written aside and takes the old one's place at once.

The manifest of a data set in shards has three columns more, which say where each image lies, and is otherwise the same,
its fingerprint included.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from orchestrator.data.folder import Fault, printable
from orchestrator.data.image import ImageHeader
from orchestrator.errors import DataError

FORMAT_VERSION = 1

Integers = Sequence[int] | npt.NDArray[np.integer]

_HEADER_KEY = b"dnctl.manifest"
_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("num_bytes", pa.int64(), nullable=False),
    ]
)
_SHARD_FIELDS = (
    pa.field("shard", pa.int32(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("crc32", pa.uint32(), nullable=False),
)
_SHARD_SCHEMA = pa.schema([*_SCHEMA, *_SHARD_FIELDS])
_DTYPES = {name: np.dtype(name) for name in ("int32", "int64", "uint32")}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardIndex:
    """Where the images of a manifest lie in shards: tar files beside it."""

    names: tuple[str, ...]
    """Of the shards, relative to the data set's root."""
    sizes: tuple[int, ...]
    """Of the shards, in bytes."""
    sha256: tuple[str, ...]
    """Of the shards, in hexadecimal digits."""
    shard: npt.NDArray[np.int32] = field(repr=False)
    """[n]: of each image, the position of its shard in `names`."""
    offset: npt.NDArray[np.int64] = field(repr=False)
    """[n]: where the image's bytes begin in the shard."""
    crc32: npt.NDArray[np.uint32] = field(repr=False)
    """[n]: of the image's bytes, as zlib computes it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """An open manifest. The arrays are read-only views of the mapped file."""

    root: Path | str
    """A folder, or the address of an object store's."""
    split: str
    classes: tuple[str, ...]
    """Their names; a label is a position in here."""
    fingerprint: str
    """"sha256:…" of the classes, of every row in order, and of what was left out."""
    left_out: tuple[Fault, ...]
    """Images that are in the folder and, being damaged, not in the manifest."""
    full_decode: bool
    """Whether every image was decoded when the manifest was made."""
    stamp: str
    """What `folder.folders_stamp` said when the manifest was made."""
    labels: npt.NDArray[np.int64] = field(repr=False)
    widths: npt.NDArray[np.int32] = field(repr=False)
    heights: npt.NDArray[np.int32] = field(repr=False)
    num_bytes: npt.NDArray[np.int64] = field(repr=False)
    relative_paths: pa.StringArray = field(repr=False)
    """Relative to the split's folder."""
    shards: ShardIndex | None = None
    """None where images are files of their own."""

    @property
    def num_samples(self) -> int:
        """The number of rows."""
        return len(self.labels)

    def path(self, index: int) -> str:
        """The absolute path of an image; of one in a shard, where it lies and what it was called."""
        name = self.relative_paths[index].as_py()
        if self.shards is None:
            return f"{self.root}/{self.split}/{name}"
        return f"{self.root}/{self.shards.names[self.shards.shard[index]]} ({self.split}/{name})"

    def header(self, index: int) -> ImageHeader:
        """What an image was when it was indexed."""
        return ImageHeader(
            width=int(self.widths[index]), height=int(self.heights[index]), num_bytes=int(self.num_bytes[index])
        )

    def paths(self, indices: npt.NDArray[np.int64]) -> list[str]:
        """The absolute paths of images that are files. indices: int64[n]."""
        folder = f"{self.root}/{self.split}/"
        return [folder + self.relative_paths[index].as_py() for index in indices.tolist()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The columns of a manifest that is being made; see Manifest."""

    relative_paths: list[str]
    labels: Integers
    widths: Integers
    heights: Integers
    num_bytes: Integers


def write_manifest(
    path: Path,
    rows: Rows,
    *,
    root: Path,
    split: str,
    classes: Sequence[str],
    left_out: Sequence[Fault],
    full_decode: bool,
    stamp: str,
    shards: ShardIndex | None = None,
) -> None:
    """Write a manifest, whole or not at all. Raises OSError where that can't be done."""
    columns = [rows.relative_paths, rows.labels, rows.widths, rows.heights, rows.num_bytes]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    header = {
        "format_version": FORMAT_VERSION,
        "root": str(root),
        "split": split,
        "classes": list(classes),
        "fingerprint": _fingerprint(classes, left_out, arrays),
        "left_out": [asdict(fault) for fault in left_out],
        "full_decode": full_decode,
        "stamp": stamp,
    }
    schema = _SCHEMA
    if shards is not None:
        schema = _SHARD_SCHEMA
        arrays += [pa.array(column) for column in (shards.shard, shards.offset, shards.crc32)]
        header["shards"] = {"names": shards.names, "sizes": shards.sizes, "sha256": shards.sha256}
    batch = pa.record_batch(arrays, schema=schema.with_metadata({_HEADER_KEY: json.dumps(header)}))
    aside = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.open("xb") as file:
            with pa.ipc.new_file(file, batch.schema) as writer:
                writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def open_manifest(path: str | Path, *, root: Path | str | None = None) -> Manifest:
    """Open a manifest. Raises DataError if the file isn't one of this version, and FileNotFoundError.

    root: where the data set lies now; where it was indexed if None.
    """
    try:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
            header: dict[str, Any] = json.loads((reader.schema.metadata or {})[_HEADER_KEY])
            schema = _SHARD_SCHEMA if "shards" in header else _SCHEMA
            if header["format_version"] != FORMAT_VERSION or not reader.schema.equals(schema):
                raise DataError(
                    f"{printable(str(path))} is a manifest of format {header['format_version']}; this dnctl reads "
                    f"{FORMAT_VERSION}. Index the data set again: dnctl data index ROOT."
                )
            batch = reader.get_batch(0)
            relative_paths, *numbers = batch.columns
            labels, widths, heights, num_bytes, *places = map(_numbers, numbers)
            return Manifest(
                root=Path(header["root"]) if root is None else root,
                split=header["split"],
                classes=tuple(header["classes"]),
                fingerprint=header["fingerprint"],
                left_out=tuple(Fault(**fault) for fault in header["left_out"]),
                full_decode=header["full_decode"],
                stamp=header["stamp"],
                labels=labels,
                widths=widths,
                heights=heights,
                num_bytes=num_bytes,
                relative_paths=relative_paths,
                shards=_shard_index(header["shards"], places) if places else None,
            )
    except (pa.ArrowInvalid, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{printable(str(path))} is no manifest, or a damaged one ({error}): delete it and index the data again."
        ) from error


def _numbers(column: pa.Array) -> npt.NDArray[Any]:
    """A column as a view. Arrow's to_numpy would import pandas where it is installed: a second, and 30 MB a rank."""
    _, values = column.buffers()
    dtype = _DTYPES[str(column.type)]
    return np.frombuffer(values, dtype=dtype, count=len(column), offset=column.offset * dtype.itemsize)


def _shard_index(header: Mapping[str, Any], places: Sequence[npt.NDArray[Any]]) -> ShardIndex:
    shard, offset, crc32 = places
    return ShardIndex(
        names=tuple(header["names"]),
        sizes=tuple(header["sizes"]),
        sha256=tuple(header["sha256"]),
        shard=shard,
        offset=offset,
        crc32=crc32,
    )


def _fingerprint(classes: Sequence[str], left_out: Sequence[Fault], arrays: Sequence[pa.Array]) -> str:
    """SHA-256 of a JSON line (format, classes, names left out), the paths joined by NUL, and the numbers' columns.

    Where the data set lies doesn't enter, so copies of it have the same fingerprint.
    """
    names = {"format": FORMAT_VERSION, "classes": list(classes), "left_out": [fault.path for fault in left_out]}
    digest = hashlib.sha256(json.dumps(names, separators=(",", ":")).encode() + b"\n")
    relative_paths, *numbers = arrays
    digest.update("\0".join(relative_paths.to_pylist()).encode() + b"\0")
    for column in numbers:
        digest.update(_numbers(column).astype("<i8").tobytes())
    return f"sha256:{digest.hexdigest()}"
