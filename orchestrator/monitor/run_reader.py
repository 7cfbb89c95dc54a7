"""Reads a run directory again and again into a `RunView`, each file only as far as it is new."""

from collections import deque
from pathlib import Path
from time import time

from orchestrator.errors import StorageError
from orchestrator.monitor.curve import GrowingCurve
from orchestrator.monitor.news import News, news_of
from orchestrator.monitor.view import RunView
from orchestrator.run import files
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.segments import SegmentReader
from orchestrator.run.status import read_status
from orchestrator.run.workers import read_workers

MAX_NEWS = 1000


class RunReader:
    """Follows one run. Its memory is bounded however long the run is."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._attempt = 0
        self._metrics: SegmentReader | None = None
        self._events: SegmentReader | None = None
        self._news: deque[News] = deque(maxlen=MAX_NEWS)
        self._num_failures = 0
        self.num_news = 0
        """Events seen so far, those that were forgotten included."""
        self._loss, self._top1 = GrowingCurve(), GrowingCurve()
        self._learning_rate, self._images_per_s = GrowingCurve(), GrowingCurve()

    def read(self) -> RunView:
        """The run as it is now. Raises NotFoundError if it is gone, StorageError if it can't be read."""
        status = read_status(self.run, now=time())
        self._follow_attempts()
        return RunView(
            status=status,
            loss=self._loss.curve(),
            top1=self._top1.curve(),
            learning_rate=self._learning_rate.curve(),
            images_per_s=self._images_per_s.curve(),
            world_size_wanted=status.world_size_wanted,
            workers=read_workers(self.run.attempt(self._attempt).telemetry) if self._attempt else None,
            news=tuple(self._news),
        )

    def _follow_attempts(self) -> None:
        """Read what is new of the attempt at hand, and of those after it."""
        self._read_attempt()
        for attempt in self.run.attempts():
            if attempt.number <= self._attempt:
                continue
            self._attempt, path = attempt.number, attempt.path
            self._metrics, self._events = SegmentReader(path, "metrics"), SegmentReader(path, "events")
            self._num_failures = 0
            self._read_attempt()

    def _read_attempt(self) -> None:
        if self._metrics is None or self._events is None:
            return
        for event in self._events.read():
            self._take_event(event)
        for row in self._metrics.read():
            self._take_row(row)
        for failure in self._new_failures(self.run.attempt(self._attempt)):
            self._take_event(failure)

    def _take_event(self, event: dict[str, object]) -> None:
        news = news_of(event, attempt=self._attempt)
        self._news.append(news)
        self.num_news += 1
        match event:
            case {"event": "evaluated", "epoch": int(epoch), "top1": float(top1)}:
                self._top1.add(epoch, top1)
            case {"event": "training_resumes", "step": int(step)}:
                for curve in (self._loss, self._learning_rate, self._images_per_s):
                    curve.forget_beyond(step)

    def _take_row(self, row: dict[str, object]) -> None:
        curves = {"loss": self._loss, "learning_rate": self._learning_rate, "images_per_s": self._images_per_s}
        step = row.get("step")
        for key, curve in curves.items():
            value = row.get(key)
            if isinstance(step, int) and isinstance(value, (int, float)):
                curve.add(step, value)

    def _new_failures(self, attempt: AttemptDirectory) -> list[dict[str, object]]:
        failures = attempt.worker_failures[self._num_failures :]
        self._num_failures += len(failures)
        return [failure_event(path) for path in failures]


def failure_event(path: Path) -> dict[str, object]:
    """What worker-failure-<k>.json says, as an event."""
    try:
        reason = str(files.read_json(path)["reason"])
        failed_at = path.stat().st_mtime
    except (StorageError, KeyError, OSError):
        reason, failed_at = "workers failed", time()
    return {"event": "workers_failed", "time": failed_at, "reason": reason}
