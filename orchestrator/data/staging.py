"""Copies shards to a local disk, in the background and up to a bound, so that later epochs read them there.

Copies are named by their content (SHA-256), appear whole or not at all, and are shared by the processes of a machine,
one of which does the copying. Every rank reads from all shards, since an epoch's order is over the whole data set;
which shards are copied therefore doesn't depend on the rank, and what doesn't fit is read where it lies, every time.
"""

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Final

from orchestrator.data.manifest import ShardIndex
from orchestrator.data.storage import Storage
from orchestrator.errors import DataError

_log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 8 << 20
_CHUNKS_AT_ONCE: Final = 4
_POLL_S: Final = 2.0
_UNUSED_S: Final = 24 * 3600
"""Copies that other data sets left, and nobody used for so long, make room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCache:
    """A folder on a local disk for copies of shards."""

    folder: Path
    max_bytes: int
    """The most that all copies in it may take."""


def default_cache_folder() -> Path:
    """Where copies go if nobody says: with the other things that this person keeps for later."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dnctl" / "shards"


class Stager:
    """Copies a data set's shards into a cache, from a thread of its own. Whatever goes wrong, reading goes on."""

    def __init__(self, index: ShardIndex, storage: Storage, cache: ShardCache) -> None:
        self._index = index
        self._storage = storage
        self._cache = cache
        self._staged: set[int] = set()
        self._closing = Event()
        self._thread = Thread(target=self._run, name="dnctl-stage", daemon=True)
        self._thread.start()

    def name(self, shard: int) -> str | None:
        """The file in the cache's folder that holds a shard, None while there is none."""
        return self._file_name(shard) if shard in self._staged else None

    def discard(self, shard: int) -> None:
        """Forget a copy that turned out to be gone or damaged, and remove it."""
        self._staged.discard(shard)
        (self._cache.folder / self._file_name(shard)).unlink(missing_ok=True)

    def close(self) -> None:
        """Stop copying; what is half copied is removed. May be called twice."""
        self._closing.set()
        self._thread.join()

    def join(self) -> None:
        """Wait until all that fits is copied."""
        self._thread.join()

    def _file_name(self, shard: int) -> str:
        return f"{self._index.sha256[shard]}.tar"

    def _run(self) -> None:
        try:
            self._cache.folder.mkdir(parents=True, exist_ok=True)
            while not self._closing.is_set():
                self._take_note_of_copies()
                if len(self._staged) == len(self._index.names):
                    return
                with _only_one(self._cache.folder / ".lock") as is_ours:
                    if is_ours:
                        self._take_note_of_copies()
                        self._copy_what_fits()
                        return
                self._closing.wait(_POLL_S)
        except (OSError, DataError) as error:
            _log.warning("no more shards are copied to %s: %s", self._cache.folder, error)

    def _take_note_of_copies(self) -> None:
        for shard, size in enumerate(self._index.sizes):
            path = self._cache.folder / self._file_name(shard)
            if shard not in self._staged and path.is_file() and path.stat().st_size == size:
                os.utime(path)  # says that it is in use
                self._staged.add(shard)

    def _copy_what_fits(self) -> None:
        for left_over in self._cache.folder.glob("*.part"):
            left_over.unlink(missing_ok=True)  # of a process that was killed: the lock is ours
        for shard, size in enumerate(self._index.sizes):
            if self._closing.is_set():
                return
            if shard in self._staged:
                continue
            if not self._make_room(size):
                _log.info("%d of %d shards are on this disk; the bound is reached", len(self._staged), shard + 1)
                return
            self._copy(shard)

    def _make_room(self, size: int) -> bool:
        """Whether a copy of that size fits, once copies that nobody uses are removed."""
        ours = {self._file_name(shard) for shard in range(len(self._index.names))}
        copies = [(path, path.stat()) for path in self._cache.folder.glob("*.tar")]
        free_bytes = self._cache.max_bytes - sum(status.st_size for _, status in copies)
        for path, status in sorted(copies, key=lambda copy: copy[1].st_mtime):
            if free_bytes >= size or time.time() - status.st_mtime < _UNUSED_S:
                break
            if path.name not in ours:
                path.unlink(missing_ok=True)
                free_bytes += status.st_size
        return free_bytes >= size

    def _copy(self, shard: int) -> None:
        name, size = self._index.names[shard], self._index.sizes[shard]
        path = self._cache.folder / self._file_name(shard)
        aside = path.with_suffix(".part")
        digest = hashlib.sha256()
        try:
            with aside.open("wb") as file:
                for chunk in self._chunks(name, size):
                    digest.update(chunk)
                    file.write(chunk)
            if self._closing.is_set():
                return
            if digest.hexdigest() != self._index.sha256[shard]:
                raise DataError(f"{self._storage.location}/{name} isn't the shard that the index was made with")
            aside.replace(path)
            self._staged.add(shard)
        finally:
            aside.unlink(missing_ok=True)

    def _chunks(self, name: str, size: int) -> Iterator[bytes]:
        """A file's bytes, some chunks read at a time; fewer if the stager is closed."""
        step = CHUNK_BYTES * _CHUNKS_AT_ONCE
        with ThreadPoolExecutor(_CHUNKS_AT_ONCE, thread_name_prefix="dnctl-stage") as readers:
            for start in range(0, size, step):
                if self._closing.is_set():
                    return
                offsets = range(start, min(start + step, size), CHUNK_BYTES)
                yield from readers.map(lambda at: self._storage.read(name, at, min(CHUNK_BYTES, size - at)), offsets)


@contextmanager
def _only_one(path: Path) -> Iterator[bool]:
    """Whether this process is the only one inside; the lock goes with the process."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
