"""Writes the parts of a data set into a folder in ImageNet layout: ROOT/SPLIT/CLASS/IMAGE.

A class folder is written aside and takes its name when all of it is on the disk. So one that is there is whole,
whatever happened, and isn't written again.
"""

import ctypes
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock

from orchestrator.data.prepare.archives import BytesDone
from orchestrator.data.prepare.parts import Part
from orchestrator.data.prepare.record import FOLDER
from orchestrator.data.space import cannot_write
from orchestrator.errors import DataError

_BLOCK_BYTES = 4096  # what a file's last bytes take on most filesystems
_REPORTED_BYTES = 1 << 22


def parts_to_write(root: Path, parts: Sequence[Part]) -> list[Part]:
    """Those that aren't there yet. Raises DataError if one is there and has lost or gained files since."""
    missing, changed = [], []
    for part in parts:
        try:
            num_files = sum(1 for _ in (root / part.name).iterdir())
        except FileNotFoundError:
            missing.append(part)
            continue
        if num_files != part.num_images:
            changed.append(f"  {root / part.name} has {num_files:,} files, not {part.num_images:,}")
    if changed:
        lines = ["Class folders were changed since they were prepared:", *changed[:20]]
        lines += [f"  … and {len(changed) - 20} more"] if len(changed) > 20 else []
        raise DataError("\n".join([*lines, "Remove them and run the same command again, which writes them anew."]))
    return missing


def space_for(parts: Sequence[Part]) -> tuple[int, int]:
    """The bytes and the files that parts take on a disk."""
    num_files = sum(part.num_images for part in parts)
    return sum(part.num_bytes for part in parts) + num_files * _BLOCK_BYTES, num_files


def write_parts(root: Path, parts: Sequence[Part], *, num_threads: int, progress: BytesDone) -> None:
    """Write parts, several at a time. What was written of a part that failed is removed again.

    progress: told bytes of all parts. Raises DataError if an archive isn't as it should be, or something is wrong with
    the disk.
    """
    aside = root / FOLDER / "partial"
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    writer = _Writer(root, aside, parts, progress)
    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="dnctl-prepare")
    try:
        for future in [executor.submit(writer.write, part) for part in parts]:
            future.result()
    finally:
        writer.stopped.set()
        executor.shutdown(cancel_futures=True)
        shutil.rmtree(aside, ignore_errors=True)


class _Writer:
    """Writes parts from several threads."""

    def __init__(self, root: Path, aside: Path, parts: Sequence[Part], progress: BytesDone) -> None:
        self.stopped = Event()
        self._root = root
        self._aside = aside
        self._progress = progress
        self._num_bytes = sum(part.num_bytes for part in parts)
        self._num_done = 0
        self._lock = Lock()

    def write(self, part: Part) -> None:
        """Write a part, or as much of it as there is time for until it is stopped."""
        aside = self._aside / part.split / part.class_name
        try:
            aside.mkdir(parents=True)
            if self._write_images(part, aside):
                _wait_until_on_disk(aside)
                (self._root / part.split).mkdir(exist_ok=True)
                aside.rename(self._root / part.name)
        except OSError as error:
            raise cannot_write(self._root / part.name, error) from error

    def _write_images(self, part: Part, folder: Path) -> bool:
        """Whether all images are written: not, when it is stopped."""
        unreported, num_written = 0, 0
        images = part.open()
        for position, name in enumerate(images.names):
            if self.stopped.is_set():
                return False
            data = images.read(position)
            (folder / name).write_bytes(data)
            num_written += len(data)
            unreported += len(data)
            if unreported >= _REPORTED_BYTES:
                self._advance(unreported)
                unreported = 0
        self._advance(part.num_bytes - num_written + unreported)
        return True

    def _advance(self, num_bytes: int) -> None:
        with self._lock:
            self._num_done += num_bytes
            self._progress(self._num_done, self._num_bytes)


def _wait_until_on_disk(folder: Path) -> None:
    """Wait until all that was written to the filesystem of a folder would survive a power cut.

    One call for a class, where a call for each of a million files would take hours. Python has none for it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
