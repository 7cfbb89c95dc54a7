"""Logs of all processes of a run as one stream: each line once, in the order of the times that the lines begin with."""

import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.run import files
from orchestrator.run.directory import RunDirectory

BLOCK_BYTES = 1 << 20
_TIME = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.,]\d{3}")
_RANK_LOG = re.compile(r"rank-(\d+)\.log")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line that a process of the run printed."""

    attempt: int
    rank: int | None
    """None for the driver."""
    text: str

    @property
    def source(self) -> str:
        """'driver' or 'rank 3'."""
        return "driver" if self.rank is None else f"rank {self.rank}"


@dataclass(slots=True)
class _File:
    """One log, and how far it was handed out."""

    path: Path
    attempt: int
    rank: int | None
    offset: int = 0


class LogReader:
    """Hands out lines that are new since the last time."""

    def __init__(
        self, run: RunDirectory, *, rank: int | None = None, driver: bool = False, tail_bytes: int | None = None
    ) -> None:
        """rank, driver: the one process that is wanted; by default all are.

        tail_bytes: of logs that are there already, begin this far before the end; by default at the beginning.
        """
        self._run = run
        self._rank, self._driver = rank, driver
        self._tail_bytes = tail_bytes
        self._files: dict[Path, _File] = {}

    @property
    def sources(self) -> Sequence[str]:
        """The processes that have a log, as far as they were looked for."""
        return sorted({file.path.stem for file in self._files.values()})

    def read(self, *, whole_lines: bool = True) -> Iterator[LogLine]:
        """New lines, attempt after attempt. One not consumed is handed out again. Raises StorageError.

        whole_lines: leave a last line without an end for later, when the rest of it is there.
        """
        self._look_for_files()
        attempts = sorted({file.attempt for file in self._files.values()})
        for attempt in attempts:
            logs = [_lines(file, whole_lines=whole_lines) for file in self._files.values() if file.attempt == attempt]
            for _, line, end, file in heapq.merge(*logs, key=lambda item: item[0]):
                file.offset = end
                yield LogLine(attempt=attempt, rank=file.rank, text=line.decode(errors="replace").rstrip("\r\n"))

    def _look_for_files(self) -> None:
        """Find logs that are new; attempts before the last but one get none any more."""
        with files.translated("list the logs of", self._run.path):
            attempts = self._run.path / "attempts"
            numbers = sorted(int(entry.name) for entry in attempts.iterdir() if entry.name.isdigit())
            is_first_time = not self._files
            for number in numbers if is_first_time else numbers[-2:]:
                folder = self._run.attempt(number).logs
                for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                    if path not in self._files and self._is_wanted(path):
                        start = self._start(path) if is_first_time else 0
                        self._files[path] = _File(path=path, attempt=number, rank=_rank(path), offset=start)

    def _is_wanted(self, path: Path) -> bool:
        if path.suffix != ".log":
            return False
        if self._driver:
            return path.stem == "driver"
        return self._rank is None or _rank(path) == self._rank

    def _start(self, path: Path) -> int:
        """Where to begin in a log that was there before us: at a line's beginning."""
        if self._tail_bytes is None:
            return 0
        start = max(path.stat().st_size - self._tail_bytes, 0)
        if start == 0:
            return 0
        with path.open("rb") as file:
            file.seek(start)
            return start + len(file.readline())


def _rank(path: Path) -> int | None:
    match = _RANK_LOG.fullmatch(path.name)
    return int(match[1]) if match else None


def _lines(file: _File, *, whole_lines: bool) -> Iterator[tuple[bytes, bytes, int, _File]]:
    """(time, line, offset of its end, file) from where the file was left; a line without a time has the one before."""
    time, offset, rest = b"", file.offset, b""
    while True:
        with files.translated("read", file.path):
            try:
                with file.path.open("rb") as log:
                    log.seek(offset + len(rest))
                    block = log.read(BLOCK_BYTES)
            except FileNotFoundError:
                return
        *whole, rest = (rest + block).split(b"\n")
        if not block and rest and not whole_lines:
            whole, rest = [rest], b""
        for line in whole:
            offset += len(line) + 1
            if match := _TIME.match(line):
                time = match[0]
            yield time, line, offset, file
        if not block:
            return
