"""Writes a shard set: several shards at a time, each whole or not at all, then the indexes that make them a data set.

The index of a split is a manifest with three columns more, and is written last: without it there is no shard set. A
shard is written aside, flushed to the disk, takes its name, and then has a slip written beside it, of what was learnt
of its images. So when writing was interrupted, it goes on with the shards that have no slip. The same images give the
same bytes.
"""

import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Lock

import numpy as np
import numpy.typing as npt

from orchestrator.data.folder import Fault
from orchestrator.data.image import BadImageError, ImageHeader, quiet_pil
from orchestrator.data.manifest import Integers, Manifest, Rows, ShardIndex, open_manifest, write_manifest
from orchestrator.data.shard_layout import END, Layout, lay_out, sample_in_tar
from orchestrator.data.shard_set import index_name
from orchestrator.data.space import cannot_write, check_space
from orchestrator.errors import DataError

_ASIDE = Path(".dnctl", "shards")
"""Where slips lie, and shards that aren't finished. It goes when all is written."""

Progress = Callable[[int, int], None]
"""Told (bytes of shards done, bytes of shards in all), from any thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A split on its way into shards. The columns are those of its manifest."""

    name: str
    classes: Sequence[str]
    relative_paths: list[str] = field(repr=False)
    labels: Integers = field(repr=False)
    num_bytes: Integers = field(repr=False)
    read: Callable[[int], bytes]
    """Gives the image of a row; called from many threads. Raises DataError."""
    look: Callable[[int, bytes], ImageHeader]
    """Gives the size of the image of a row, given its bytes, or raises BadImageError."""
    left_out: Sequence[Fault] = ()
    full_decode: bool = False
    """Whether every image is known to decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What there is when a shard set has been written."""

    indexes: Sequence[Manifest]
    """Of the splits, in the order in which they were given."""
    faults: Sequence[Fault]
    """Images that can't be used. If there are any, the set isn't complete, and there are no indexes."""
    num_shards: int
    num_shards_written: int
    """Those that weren't there before."""
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slip:
    """What is known of a shard once it is written; the lists are in the order of its samples."""

    key: str
    sha256: str
    crc32: list[int]
    widths: list[int]
    heights: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    split: Split
    layout: Layout
    key: str
    number: int

    @property
    def name(self) -> str:
        return self.layout.names[self.number]

    @property
    def size(self) -> int:
        return self.layout.sizes[self.number]


def write_shard_set(
    splits: Sequence[Split], out: Path, *, shard_bytes: int, num_threads: int, progress: Progress
) -> Written:
    """Write the shards that aren't there yet, and then the indexes, into a folder.

    Nobody else may write to the folder meanwhile (see prepare/record.py). Raises DataError if there is no room or the
    disk is full, and OSError.
    """
    layouts = [lay_out(split.name, split.labels, split.num_bytes, shard_bytes=shard_bytes) for split in splits]
    keys = [_key(split, shard_bytes) for split in splits]
    tasks = [
        _Task(split=split, layout=layout, key=key, number=number)
        for split, layout, key in zip(splits, layouts, keys, strict=True)
        for number in range(len(layout.names))
    ]
    slips = {task.name: slip for task in tasks if (slip := _slip_of(out, task)) is not None}
    missing = [task for task in tasks if task.name not in slips]
    check_space(out, num_bytes=sum(task.size for task in missing))
    writer = _Writer(out, num_bytes=sum(task.size for task in tasks), progress=progress)
    writer.advance(sum(task.size for task in tasks if task.name in slips))
    slips |= writer.write_all(missing, num_threads)
    indexes = []
    if not writer.faults:
        _remove_others(out, layouts)
        for split, layout in zip(splits, layouts, strict=True):
            _write_index(out, split, layout, [slips[name] for name in layout.names])
        indexes = [open_manifest(out / index_name(split.name), root=out.absolute()) for split in splits]
        shutil.rmtree(out / _ASIDE)
    return Written(
        indexes=indexes,
        faults=writer.faults,
        num_shards=len(tasks),
        num_shards_written=len(missing),
        num_bytes=sum(task.size for task in tasks),
    )


def _remove_others(out: Path, layouts: Sequence[Layout]) -> None:
    """Delete what an interrupted writing with shards of another size has left: readers by name would take it, too."""
    for layout in layouts:
        prefix = layout.names[0].rpartition("-")[0]
        for path in out.glob(f"{prefix}-*.tar"):
            if path.name not in layout.names:
                path.unlink()


def complete_shard_set(out: Path, names: Sequence[str]) -> list[Manifest] | None:
    """The indexes of the splits of a complete shard set, or None. Raises DataError if its shards have changed size."""
    paths = [out / index_name(name) for name in names]
    if not all(path.is_file() for path in paths):
        return None
    indexes = [open_manifest(path, root=out.absolute()) for path in paths]
    for index in indexes:
        if index.shards is None:
            raise DataError(
                f"{out / index_name(index.split)} is no index of shards. Remove it, or name another folder."
            )
        for name, size in zip(index.shards.names, index.shards.sizes, strict=True):
            if _size(out / name) != size:
                raise DataError(
                    f"{out / name} isn't as it was written: it should have {size:,} bytes and "
                    f"{'is missing' if _size(out / name) is None else f'has {_size(out / name):,}'}. Remove "
                    f"{out / index_name(index.split)} and run the same command again, which writes the shards anew."
                )
    return indexes


def _key(split: Split, shard_bytes: int) -> str:
    """What shards are a function of, but for the images' contents."""
    digest = hashlib.sha256(f"{split.name}\n{shard_bytes}\n{json.dumps(list(split.classes))}\n".encode())
    digest.update("\0".join(split.relative_paths).encode())
    for column in (split.labels, split.num_bytes):
        digest.update(np.asarray(column).astype("<i8").tobytes())
    return digest.hexdigest()


def _slip_of(out: Path, task: _Task) -> _Slip | None:
    """The slip of a shard that is there, if it is the one that would be written."""
    try:
        slip = _Slip(**json.loads((out / _ASIDE / f"{task.name}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return slip if slip.key == task.key and _size(out / task.name) == task.size else None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


class _Writer:
    """Writes shards from several threads."""

    def __init__(self, out: Path, *, num_bytes: int, progress: Progress) -> None:
        self.faults: list[Fault] = []
        self._out = out
        self._num_bytes = num_bytes
        self._progress = progress
        self._num_done = 0
        self._stopped = Event()
        self._lock = Lock()

    def write_all(self, tasks: Sequence[_Task], num_threads: int) -> dict[str, _Slip]:
        """Write shards. Gives the slips of those that hold good images alone; the others' faults are in `faults`."""
        (self._out / _ASIDE).mkdir(parents=True, exist_ok=True)
        executor = ThreadPoolExecutor(num_threads, thread_name_prefix="dnctl-shard")
        try:
            with quiet_pil():
                slips = list(executor.map(self._write, tasks))
        finally:
            self._stopped.set()  # so that an interrupt doesn't wait for whole shards
            executor.shutdown(cancel_futures=True)
        return {task.name: slip for task, slip in zip(tasks, slips, strict=True) if slip is not None}

    def advance(self, num_bytes: int) -> None:
        """Report so many bytes more."""
        with self._lock:
            self._num_done += num_bytes
            self._progress(self._num_done, self._num_bytes)

    def _write(self, task: _Task) -> _Slip | None:
        """Write a shard, or as much of it as there is time for until it is stopped."""
        aside = self._out / _ASIDE / f"{task.name}.part"
        try:
            slip = self._write_aside(task, aside)
            if slip is not None:
                aside.replace(self._out / task.name)
                _replace(self._out / _ASIDE / f"{task.name}.json", json.dumps(asdict(slip)))
            return slip
        except OSError as error:
            raise cannot_write(self._out / task.name, error) from error
        finally:
            aside.unlink(missing_ok=True)

    def _write_aside(self, task: _Task, path: Path) -> _Slip | None:
        split, digest = task.split, hashlib.sha256()
        headers: list[ImageHeader] = []
        crc32: list[int] = []
        good = True
        with path.open("wb") as file:
            for row in task.layout.rows[task.number].tolist():
                if self._stopped.is_set():
                    return None
                image = split.read(row)
                try:
                    headers.append(split.look(row, image))
                except BadImageError as error:
                    good = False
                    with self._lock:
                        self.faults.append(Fault(path=f"{split.name}/{split.relative_paths[row]}", problem=str(error)))
                    continue
                crc32.append(zlib.crc32(image))
                for piece in sample_in_tar(row, image, int(split.labels[row])):
                    file.write(piece)
                    digest.update(piece)
                self.advance(len(image))
            file.write(END)
            digest.update(END)
            file.flush()
            os.fsync(file.fileno())
        self.advance(task.size - sum(header.num_bytes for header in headers))
        if not good:
            return None
        return _Slip(
            key=task.key,
            sha256=digest.hexdigest(),
            crc32=crc32,
            widths=[header.width for header in headers],
            heights=[header.height for header in headers],
        )


def _replace(path: Path, content: str) -> None:
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    aside.write_text(content)
    aside.replace(path)


def _write_index(out: Path, split: Split, layout: Layout, slips: Sequence[_Slip]) -> None:
    def by_row(columns: Sequence[list[int]], dtype: type[np.integer]) -> npt.NDArray[np.integer]:
        values = np.empty(len(split.labels), dtype)
        for rows, column in zip(layout.rows, columns, strict=True):
            values[rows] = column
        return values

    rows = Rows(
        relative_paths=split.relative_paths,
        labels=split.labels,
        widths=by_row([slip.widths for slip in slips], np.int32),
        heights=by_row([slip.heights for slip in slips], np.int32),
        num_bytes=split.num_bytes,
    )
    write_manifest(
        out / index_name(split.name),
        rows,
        root=out.absolute(),
        split=split.name,
        classes=split.classes,
        left_out=split.left_out,
        full_decode=split.full_decode,
        stamp="",
        shards=ShardIndex(
            names=layout.names,
            sizes=layout.sizes,
            sha256=tuple(slip.sha256 for slip in slips),
            shard=layout.shard,
            offset=layout.offset,
            crc32=np.asarray(by_row([slip.crc32 for slip in slips], np.uint32), dtype=np.uint32),
        ),
    )
