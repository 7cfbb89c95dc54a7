"""All runs of a storage, read again and again: those that can't have changed are not read anew."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time

from orchestrator.errors import NotFoundError, StorageError
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.state import State
from orchestrator.run.status import RunStatus, read_status

Signature = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All runs of a storage at one moment."""

    statuses: Sequence[RunStatus]
    """Those that are active first, then by age, the newest first."""
    damaged: Sequence[str]
    """Why a run can't be read, a message for each such run."""


class OverviewReader:
    """Reads the status of every run; of a thousand finished ones it looks at two files' times each."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: dict[str, tuple[Signature, RunStatus]] = {}

    def read(self) -> Overview:
        """All runs. Raises StorageError if the storage can't be listed."""
        now = time()
        with files.translated("list the runs in", self._root):
            entries = list(os.scandir(self._root)) if self._root.is_dir() else []
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        seen, damaged = {}, []
        for name in names:
            try:
                seen[name] = self._read_run(name, now)
            except NotFoundError:
                continue  # no run, or one that is just being made or deleted
            except StorageError as error:
                damaged.append(str(error))
        self._seen = seen
        statuses = [status for _, status in seen.values()]
        statuses.sort(key=lambda status: (not _is_alive(status), -status.record.created_at, status.run.name))
        return Overview(statuses=statuses, damaged=damaged)

    def _read_run(self, name: str, now: float) -> tuple[Signature, RunStatus]:
        run = RunDirectory(self._root / name)
        signature = (_signature(run.state), _signature(run.lease))
        before = self._seen.get(name)
        if before is not None and before[0] == signature and not _is_alive(before[1]):
            return before
        return signature, read_status(run, now=now)


def _is_alive(status: RunStatus) -> bool:
    """Whether somebody writes to the run."""
    return status.state.is_active or status.state is State.PENDING


def _signature(path: Path) -> tuple[int, int, int] | None:
    """What changes with every atomic replace of a file; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
