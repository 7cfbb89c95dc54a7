"""JSON lines in segments: an append-only log on storage that can't append.

The newest segment is replaced atomically as it grows; a full one is never touched again. A writer owns its prefix, so
two attempts never write to one file. Flushing happens in a thread: a step is never held up by storage.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from orchestrator.errors import StorageError
from orchestrator.run import files

_log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 * 1024
FLUSH_INTERVAL_S = 1.0


class SegmentWriter:
    """Appends rows to `<directory>/<prefix>-<number>.jsonl`. Storage faults are logged and tried again."""

    def __init__(self, directory: Path, prefix: str) -> None:
        self._directory = directory
        self._prefix = prefix
        self._number = 0
        self._lines: list[bytes] = []
        self._num_bytes = 0
        self._dirty = False
        self._closing = False
        self._condition = Condition()
        files.make_directory(directory)
        self._thread = Thread(target=self._run, name=f"segments-{prefix}", daemon=True)
        self._thread.start()

    def append(self, row: dict[str, Any]) -> None:
        """Add one row; it is on storage within FLUSH_INTERVAL_S."""
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        with self._condition:
            self._lines.append(line)
            self._num_bytes += len(line)
            self._dirty = True

    def flush(self) -> None:
        """Write what is there now. Raises StorageError."""
        with self._condition:
            if not self._dirty:
                return
            path = self._directory / f"{self._prefix}-{self._number:06d}.jsonl"
            files.write_atomically(path, b"".join(self._lines))
            self._dirty = False
            if self._num_bytes >= SEGMENT_BYTES:
                self._number += 1
                self._lines.clear()
                self._num_bytes = 0

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closing, timeout=FLUSH_INTERVAL_S)
                closing = self._closing
            try:
                self.flush()
            except StorageError as error:
                _log.warning("%s; kept in memory and tried again", error)
            if closing:
                return

    def close(self) -> None:
        """Write the rest and end the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()


def read_segments(directory: Path, prefix: str) -> Iterator[dict[str, Any]]:
    """All whole rows of a log, oldest first. A line that is cut short or no JSON object is passed over."""
    for path in sorted(directory.glob(f"{prefix}-*.jsonl")):
        with files.translated("read", path):
            lines = path.read_bytes().splitlines()
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row
