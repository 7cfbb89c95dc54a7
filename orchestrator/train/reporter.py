"""What the loop tells the outside, and what it asks of it. The loop knows no more of runs and clusters than this."""

import logging
import socket
from collections.abc import Mapping
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from threading import Event, Thread
from time import time
from typing import Any, Final, Protocol

from orchestrator.errors import CheckpointError, StorageError, TakenOverError
from orchestrator.run import files
from orchestrator.run.checkpoints import (
    Checkpoint,
    best_checkpoint,
    checkpoint_path,
    newest_whole,
    retain,
    write_checkpoint,
)
from orchestrator.run.directory import RunDirectory
from orchestrator.run.ending import read_ending
from orchestrator.run.ledger import time_exposed_s
from orchestrator.run.passed_over import PassedOver, read_passed_over, write_passed_over
from orchestrator.run.patience import patiently
from orchestrator.run.pause import read_pause_request
from orchestrator.run.progress import Progress, write_progress
from orchestrator.run.segments import SegmentWriter
from orchestrator.run.stop import read_stop_request
from orchestrator.run.workers import Workers, write_workers

_log = logging.getLogger(__name__)

BEST_BY: Final = "top1"
"""The figure of a checkpoint by which the best one is chosen."""


class Request(IntEnum):
    """What a run can be asked to do after a step."""

    NOTHING = 0
    PAUSE = 1
    """Save a checkpoint and let the workers go: others will take over."""
    STOP = 2
    """Save a checkpoint and end."""


class Reporter(Protocol):
    """The loop's way out. Called on the first rank alone, but for `resume_from`; no call waits for another rank."""

    def resume_from(self) -> tuple[Checkpoint, dict[str, bytes]] | None:
        """The checkpoint to go on from, verified; None to begin at the first step. Raises CheckpointError."""

    def best(self) -> Checkpoint | None:
        """The checkpoint with the best validation; None if none has any."""

    def report(self, progress: Progress, row: Mapping[str, Any] | None = None) -> None:
        """Take the newest figures, and a row for the metrics log."""

    def workers(self, workers: Workers) -> None:
        """Take the newest figures of all ranks."""

    def event(self, kind: str, **details: Any) -> None:
        """Take note that something happened."""

    def save(self, *, step: int, contents: Mapping[str, bytes], metrics: Mapping[str, float | None]) -> Checkpoint:
        """Make a checkpoint of the given files. Raises StorageError."""

    def request(self) -> "Request":
        """What the run shall do after this step."""

    def passed_over(self) -> PassedOver:
        """The steps that the run leaves out. Raises StorageError."""

    def pass_over(self, passed_over: PassedOver) -> None:
        """Leave out these from now on. Raises StorageError."""

    def failure_history(self) -> tuple[float, int]:
        """Seconds in which the run's attempts could have failed, and how many have."""


class RunReporter:
    """Reports into a run directory, as one attempt. Storage is written by threads: the loop doesn't wait for it."""

    def __init__(self, run: RunDirectory, *, attempt: int, keep_last: int, keep_best: int) -> None:
        self._run = run
        self._attempt = run.attempt(attempt)
        self._keep_last, self._keep_best = keep_last, keep_best
        self._metrics = SegmentWriter(self._attempt.path, "metrics")
        self._events = SegmentWriter(self._attempt.path, "events")
        self._progress: Progress | None = None
        self._workers: Workers | None = None
        self._request = Request.NOTHING
        self._news, self._closing = Event(), Event()
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

        found = patiently(lambda: newest_whole(self._checkpoints(), passed_over=passed_over))
        if found is None and num_bad:
            raise CheckpointError(
                f"none of the {num_bad} checkpoints in {self._run.checkpoints} verifies; restore one of them, "
                "or remove them all to begin at the first step"
            )
        return found

    def _checkpoints(self) -> Path:
        """Where they are. Raises StorageError if that place is away, which is another thing than having none."""
        files.require(self._run.checkpoints)
        return self._run.checkpoints

    def best(self) -> Checkpoint | None:
        """The best checkpoint by validation top-1."""
        return best_checkpoint(self._run.checkpoints, BEST_BY)

    def report(self, progress: Progress, row: Mapping[str, Any] | None = None) -> None:
        """Keep the figures for the next write, at most a second away; at once where something else is done now."""
        before, self._progress = self._progress, progress
        if before is None or before.activity != progress.activity:
            self._news.set()
        if row is not None:
            self._metrics.append({"time": time(), **row})

    def workers(self, workers: Workers) -> None:
        """Keep the figures of all ranks for the next write."""
        self._workers = workers

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
            metric=BEST_BY,
            attempt=number,
        ):
            self.event("checkpoint_deleted", checkpoint=deleted.path.name)
        return Checkpoint(path=path, step=step, attempt=number)

    def _refuse_if_taken_over(self) -> None:
        newest, _ = self._run.newest_attempt()
        if newest != self._attempt.number:
            raise TakenOverError(
                f"attempt {self._attempt.number} of run {self._run.name} on {socket.gethostname()} was taken over by "
                f"attempt {newest}; it writes nothing more"
            )

    def request(self) -> Request:
        """What lay in the run directory at most a second ago."""
        return self._request

    def passed_over(self) -> PassedOver:
        """What the run directory says."""
        return read_passed_over(self._run.passed_over)

    def pass_over(self, passed_over: PassedOver) -> None:
        """Write it down."""
        self._refuse_if_taken_over()
        write_passed_over(self._run.passed_over, passed_over)

    def failure_history(self) -> tuple[float, int]:
        """By the attempts that came to no end of their own."""
        attempts = self._run.attempts()
        failed = [attempt for attempt in attempts if attempt.number < self._attempt.number and not read_ending(attempt)]
        return time_exposed_s(self._run, attempt=self._attempt.number, now=time()), len(failed)

    def _follow(self) -> None:
        written: tuple[Progress | None, Workers | None] = (None, None)
        while True:
            self._news.wait(1.0)
            self._news.clear()
            closing = self._closing.is_set()
            progress, workers = self._progress, self._workers
            try:
                if progress is not None and progress is not written[0]:
                    write_progress(self._attempt.progress, progress)
                if workers is not None and workers is not written[1]:
                    write_workers(self._attempt.telemetry, workers)
                written = progress, workers
                self._look_for_requests()
            except (StorageError, OSError) as error:
                _log.warning("%s; tried again in a second", error)
            if closing:
                return

    def _look_for_requests(self) -> None:
        stop = read_stop_request(self._run.stop_request)
        if stop is not None and stop.now:
            return
        if stop is not None:
            self._request = Request.STOP
        elif (
            self._request is Request.NOTHING and (pause := read_pause_request(self._attempt.pause_request)) is not None
        ):
            self._request = Request.PAUSE
            self.event("pause_requested", **asdict(pause))

    def close(self) -> None:
        """Write what is left."""
        self._closing.set()
        self._news.set()
        self._thread.join()
        self._metrics.close()
        self._events.close()


class SilentReporter:
    """Tells nobody, resumes from nothing: for ranks other than the first, probes and benchmarks."""

    def resume_from(self) -> None:
        """Nothing to resume from."""

    def best(self) -> None:
        """Nothing was saved."""

    def report(self, progress: Progress, row: Mapping[str, Any] | None = None) -> None:
        """Drop the figures."""

    def workers(self, workers: Workers) -> None:
        """Drop the figures."""

    def event(self, kind: str, **details: Any) -> None:
        """Drop the event."""

    def save(self, *, step: int, contents: Mapping[str, bytes], metrics: Mapping[str, float | None]) -> Checkpoint:
        """Only the first rank saves."""
        raise AssertionError("a rank that tells nobody was asked to save a checkpoint")

    def request(self) -> Request:
        """Nobody asks for anything."""
        return Request.NOTHING

    def passed_over(self) -> PassedOver:
        """Nothing is left out."""
        return PassedOver()

    def pass_over(self, passed_over: PassedOver) -> None:
        """Only the first rank writes it down."""
        raise AssertionError("a rank that tells nobody was asked to write down what is left out")

    def failure_history(self) -> tuple[float, int]:
        """Nothing ever failed."""
        return 0.0, 0
