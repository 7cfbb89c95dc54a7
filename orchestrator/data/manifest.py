"""The manifest of a split: a table with the path, label, width, height and size in bytes of every image.

It is an Arrow file of one record batch, memory-mapped: opening 1.28 million rows reads its header, and the ranks of a
machine share its pages. Row numbers are the sample indices that orders and draws are functions of. A manifest never
changes; a new one is written aside and takes the old one's place at once.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """An open manifest. The arrays are read-only views of the mapped file."""

    root: Path
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

    @property
    def num_samples(self) -> int:
        """The number of rows."""
        return len(self.labels)

    def path(self, index: int) -> str:
        """The absolute path of an image."""
        return f"{self.root}/{self.split}/{self.relative_paths[index].as_py()}"

    def header(self, index: int) -> ImageHeader:
        """What an image was when it was indexed."""
        return ImageHeader(
            width=int(self.widths[index]), height=int(self.heights[index]), num_bytes=int(self.num_bytes[index])
        )

    def paths(self, indices: npt.NDArray[np.int64]) -> list[str]:
        """The absolute paths of images. indices: int64[n]."""
        folder = f"{self.root}/{self.split}/"
        return [folder + path for path in self.relative_paths.take(pa.array(indices)).to_pylist()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The columns of a manifest that is being made; see Manifest."""

    relative_paths: list[str]
    labels: Sequence[int]
    widths: Sequence[int]
    heights: Sequence[int]
    num_bytes: Sequence[int]


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
    batch = pa.record_batch(arrays, schema=_SCHEMA.with_metadata({_HEADER_KEY: json.dumps(header)}))
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


def open_manifest(path: str | Path, *, root: Path | None = None) -> Manifest:
    """Open a manifest. Raises DataError if the file isn't one of this version, and FileNotFoundError.

    root: where the data set lies now; where it was indexed if None.
    """
    try:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
            header: dict[str, Any] = json.loads((reader.schema.metadata or {})[_HEADER_KEY])
            if header["format_version"] != FORMAT_VERSION or not reader.schema.equals(_SCHEMA):
                raise DataError(
                    f"{printable(str(path))} is a manifest of format {header['format_version']}; this dnctl reads "
                    f"{FORMAT_VERSION}. Index the data set again: dnctl data index ROOT."
                )
            batch = reader.get_batch(0)
            relative_paths, *numbers = batch.columns
            labels, widths, heights, num_bytes = (column.to_numpy(zero_copy_only=True) for column in numbers)
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
            )
    except (pa.ArrowInvalid, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{printable(str(path))} is no manifest, or a damaged one ({error}): delete it and index the data again."
        ) from error


def _fingerprint(classes: Sequence[str], left_out: Sequence[Fault], arrays: Sequence[pa.Array]) -> str:
    """SHA-256 of a JSON line (format, classes, names left out), the paths joined by NUL, and the numbers' columns.

    Where the data set lies doesn't enter, so copies of it have the same fingerprint.
    """
    names = {"format": FORMAT_VERSION, "classes": list(classes), "left_out": [fault.path for fault in left_out]}
    digest = hashlib.sha256(json.dumps(names, separators=(",", ":")).encode() + b"\n")
    relative_paths, *numbers = arrays
    digest.update("\0".join(relative_paths.to_pylist()).encode() + b"\0")
    for column in numbers:
        digest.update(column.to_numpy().astype("<i8").tobytes())
    return f"sha256:{digest.hexdigest()}"
