"""What the loop tells the outside, and what it asks of it. The loop knows no more of runs and clusters than this."""

import logging
import socket
from collections.abc import Mapping
from threading import Event, Thread
from time import time
from typing import Any, Protocol

from orchestrator.errors import CheckpointError, StorageError
from orchestrator.run.checkpoints import Checkpoint, checkpoint_path, newest_whole, retain, write_checkpoint
from orchestrator.run.directory import RunDirectory
from orchestrator.run.progress import Progress, write_progress
from orchestrator.run.segments import SegmentWriter

_log = logging.getLogger(__name__)


class Reporter(Protocol):
    """The loop's way out. Called on the first rank alone, but for `resume_from`; no call waits for another rank."""

    def resume_from(self) -> tuple[Checkpoint, dict[str, bytes]] | None:
        """The checkpoint to go on from, verified; None to begin at the first step. Raises CheckpointError."""

    def report(self, progress: Progress, row: Mapping[str, Any] | None = None) -> None:
        """Take the newest figures, and a row for the metrics log."""

    def event(self, kind: str, **details: Any) -> None:
        """Take note that something happened."""

    def save(self, *, step: int, contents: Mapping[str, bytes], metrics: Mapping[str, float | None]) -> Checkpoint:
        """Make a checkpoint of the given files. Raises StorageError."""

    def stop_requested(self) -> bool:
        """Whether the run shall end with a checkpoint after this step."""


class RunReporter:
    """Reports into a run directory, as one attempt. Storage is written by threads: the loop doesn't wait for it."""

    def __init__(self, run: RunDirectory, *, attempt: int, keep_last: int, keep_best: int) -> None:
        self._run = run
        self._attempt = run.attempt(attempt)
        self._keep_last, self._keep_best = keep_last, keep_best
        self._metrics = SegmentWriter(self._attempt.path, "metrics")
        self._events = SegmentWriter(self._attempt.path, "events")
        self._progress: Progress | None = None
        self._stop_requested = Event()
        self._closing = Event()
        self._thread = Thread(target=self._follow, name="reporter", daemon=True)
        self._thread.start()

    def resume_from(self) -> tuple[Checkpoint, dict[str, bytes]] | None:
        """The newest checkpoint that verifies; every one passed over is an event."""
        num_bad = 0

        def passed_over(checkpoint: Checkpoint, error: CheckpointError) -> None:
            nonlocal num_bad
            num_bad += 1
            _log.warning("passed over: %s", error)
            self.event("checkpoint_passed_over", checkpoint=checkpoint.path.name, reason=str(error))

        found = newest_whole(self._run.checkpoints, passed_over=passed_over)
        if found is None and num_bad:
            raise CheckpointError(
                f"none of the {num_bad} checkpoints in {self._run.checkpoints} verifies; restore one of them, "
                "or remove them all to begin at the first step"
            )
        return found

    def report(self, progress: Progress, row: Mapping[str, Any] | None = None) -> None:
        """Keep the figures for the next write, at most a second away."""
        self._progress = progress
        if row is not None:
            self._metrics.append({"time": time(), **row})

    def event(self, kind: str, **details: Any) -> None:
        """Append to the event log."""
        self._events.append({"time": time(), "event": kind, **details})

    def save(self, *, step: int, contents: Mapping[str, bytes], metrics: Mapping[str, float | None]) -> Checkpoint:
        """Write, commit, and let go of older ones. The logs come first: what led to a checkpoint is never missing."""
        self._metrics.flush()
        self._events.flush()
        number = self._attempt.number
        path = checkpoint_path(self._run.checkpoints, step=step, attempt=number)
        write_checkpoint(path, contents, metrics=metrics, may_commit=self._refuse_if_taken_over)
        self.event("checkpoint_saved", checkpoint=path.name, step=step)
        for deleted in retain(
            self._run.checkpoints,
            keep_last=self._keep_last,
            keep_best=self._keep_best,
            metric="top1",
            attempt=number,
        ):
            self.event("checkpoint_deleted", checkpoint=deleted.path.name)
        return Checkpoint(path=path, step=step, attempt=number)

    def _refuse_if_taken_over(self) -> None:
        newest, _ = self._run.newest_attempt()
        if newest != self._attempt.number:
            raise StorageError(
                f"attempt {self._attempt.number} of run {self._run.name} on {socket.gethostname()} was taken over by "
                f"attempt {newest}; it writes nothing more"
            )

    def stop_requested(self) -> bool:
        """Whether a stop request lay in the run directory, at most a second ago."""
        return self._stop_requested.is_set()

    def _follow(self) -> None:
        written: Progress | None = None
        while True:
            closing = self._closing.wait(1.0)
            progress = self._progress
            try:
                if progress is not None and progress is not written:
                    write_progress(self._attempt.progress, progress)
                    written = progress
            except StorageError as error:
                _log.warning("%s; tried again in a second", error)
            if self._run.stop_request.exists():
                self._stop_requested.set()
            if closing:
                return

    def close(self) -> None:
        """Write what is left."""
        self._closing.set()
        self._thread.join()
        self._metrics.close()
        self._events.close()


class SilentReporter:
    """Tells nobody, resumes from nothing: for ranks other than the first, probes and benchmarks."""

    def resume_from(self) -> None:
        """Nothing to resume from."""

    def report(self, progress: Progress, row: Mapping[str, Any] | None = None) -> None:
        """Drop the figures."""

    def event(self, kind: str, **details: Any) -> None:
        """Drop the event."""

    def save(self, *, step: int, contents: Mapping[str, bytes], metrics: Mapping[str, float | None]) -> Checkpoint:
        """Only the first rank saves."""
        raise AssertionError("a rank that tells nobody was asked to save a checkpoint")

    def stop_requested(self) -> bool:
        """Nobody asks."""
        return False
