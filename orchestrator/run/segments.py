"""JSON lines in segments: an append-only log on storage that can't append.

The newest segment is replaced atomically as it grows; a full one is never touched again. A writer owns its prefix, so
two attempts never write to one file. Flushing happens in a thread, and a row is appended while it does: a step is never
held up by storage.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from orchestrator.errors import StorageError
from orchestrator.redaction import redacted
from orchestrator.run import documents, files

_log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 * 1024
FLUSH_INTERVAL_S = 1.0


class SegmentWriter:
    """Appends rows to `<directory>/<prefix>-<number>.jsonl`. Storage faults are logged and tried again.

    The directory isn't made: one that isn't there is a storage that is away.
    """

    def __init__(self, directory: Path, prefix: str) -> None:
        self._directory = directory
        self._prefix = prefix
        self._number = 0
        self._lines: list[bytes] = []
        self._num_written = 0
        self._lines_lock = Lock()
        self._file_lock = Lock()
        self._closing = Event()
        self._thread = Thread(target=self._run, name=f"segments-{prefix}", daemon=True)
        self._thread.start()

    def append(self, row: dict[str, Any]) -> None:
        """Add one row; it is on storage within FLUSH_INTERVAL_S."""
        line = documents.seal(redacted(json.dumps(row, ensure_ascii=False)).encode()) + b"\n"
        with self._lines_lock:
            self._lines.append(line)

    def flush(self) -> None:
        """Write what is there now. Raises StorageError."""
        with self._file_lock:
            with self._lines_lock:
                lines = list(self._lines)
            if len(lines) == self._num_written:
                return
            content = b"".join(lines)
            files.write_atomically(segment_path(self._directory, self._prefix, self._number), content)
            self._num_written = len(lines)
            if len(content) >= SEGMENT_BYTES:
                self._begin_segment()

    def _begin_segment(self) -> None:
        with self._lines_lock:
            del self._lines[: self._num_written]
        self._num_written = 0
        self._number += 1

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(FLUSH_INTERVAL_S)
            try:
                self.flush()
            except StorageError as error:
                _log.warning("%s; kept in memory and tried again", error)

    def close(self) -> None:
        """Write the rest and end the thread."""
        self._closing.set()
        self._thread.join()


class SegmentReader:
    """Hands out the rows of a log that are new since the last time, and reads no byte of it twice."""

    def __init__(self, directory: Path, prefix: str) -> None:
        self._directory = directory
        self._prefix = prefix
        self._number = 0
        self._offset = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """New whole rows, oldest first, a segment in memory at a time. Raises StorageError."""
        while True:
            yield from parse_rows(self._read_bytes(segment_path(self._directory, self._prefix, self._number)))
            if not segment_path(self._directory, self._prefix, self._number + 1).is_file():
                return
            self._number, self._offset = self._number + 1, 0

    def _read_bytes(self, path: Path) -> bytes:
        """Whole lines beyond the offset, which moves behind them."""
        with files.translated("read", path):
            try:
                with files.open_plain(path) as file:
                    file.seek(self._offset)
                    content = file.read()
            except FileNotFoundError:
                return b""
        content = content[: content.rfind(b"\n") + 1]
        self._offset += len(content)
        return content


def segment_path(directory: Path, prefix: str, number: int) -> Path:
    """The file of one segment of a log, counted from 0."""
    return directory / f"{prefix}-{number:06d}.jsonl"


def read_segments(directory: Path, prefix: str) -> Iterator[dict[str, Any]]:
    """All whole rows of a log, oldest first. A line that is cut short, changed or no JSON object is passed over."""
    for path in sorted(directory.glob(f"{prefix}-*.jsonl")):
        with files.translated("read", path), files.open_plain(path) as file:
            content = file.read()
        yield from parse_rows(content)


def parse_rows(content: bytes) -> Iterator[dict[str, Any]]:
    """The rows of some lines; what is no JSON object, or was changed since, is passed over."""
    for line in content.splitlines():
        try:
            yield documents.parse_sealed(line)
        except ValueError:
            continue
