"""When a checkpoint is made, and the making of it behind the loop's back.

A step is held up while tensors are copied to the host; packing, hashing and writing happen in a thread. One checkpoint
is written at a time: a scheduled one waits until the one before is on storage, one by the clock comes later instead.
The loop looks after each step for what has become of it, so a full disk is known within a step, and the recipe says
whether the run goes on without or fails. A run never ends without its last checkpoint.
"""

import logging
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter, sleep, time

from orchestrator.errors import StorageError, TakenOverError
from orchestrator.plan.interval import best_interval_s
from orchestrator.plan.plan import Execution
from orchestrator.run.checkpoints import Checkpoint
from orchestrator.train.checkpoint import Snapshot, TrainingState
from orchestrator.train.reporter import Reporter

_log = logging.getLogger(__name__)

RETRY_AFTER_S = 30.0
"""By the clock, after a checkpoint that failed."""
LAST_PATIENCE_S = 120.0
LAST_TRY_PAUSE_S = 2.0
"""The end of a run waits so long for a storage that takes its checkpoint, and tries so often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A checkpoint that is on storage."""

    checkpoint: Checkpoint
    at: float
    write_s: float


class Saving:
    """The checkpoints of one attempt, made by its first rank."""

    def __init__(self, reporter: Reporter, execution: Execution, *, first_step: int) -> None:
        """first_step: the step that the attempt begins at, which needs no checkpoint."""
        self._reporter = reporter
        self._execution = execution
        self._saved_step = first_step
        self._begun_step = first_step
        self.hold_s: float | None = None
        """For how long the latest checkpoint held up the steps."""
        self.write_s: float | None = None
        """How long the writing of the latest took behind them."""
        self.interval_s = self._best_interval_s()
        """From one checkpoint by the clock to the next; infinite if there are none."""
        self._next_at = perf_counter() + self.interval_s
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[_Written] | None = None
        self._fault: StorageError | None = None
        self.latest: Checkpoint | None = None
        """The newest that this attempt has committed."""
        self.latest_at: float | None = None
        """When that was, in seconds since 1970."""

    def _best_interval_s(self) -> float:
        minutes = self._execution.checkpoint_every_minutes
        if minutes == "auto":
            lived_s, num_failures = self._failure_history()
            expected_s = 3600 * self._execution.mtbf_hours
            mtbf_s = (lived_s + expected_s) / (num_failures + 1)
            return best_interval_s(
                hold_s=self.hold_s or 0.0, write_s=self.write_s or 0.0, mean_time_between_failures_s=mtbf_s
            )
        return math.inf if minutes is None else 60 * minutes

    def _failure_history(self) -> tuple[float, int]:
        try:
            return self._reporter.failure_history()
        except StorageError as error:  # the interval is no reason to fail
            _log.warning("%s", error)
            return 0.0, 0

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint shall be made now that this many steps are done."""
        if step in self._execution.checkpoint_steps:
            return True
        return perf_counter() >= self._next_at and self._writing is None

    def begin(self, step: int, take: Callable[[], Snapshot]) -> None:
        """Copy the state after `step` and have it written. Waits for the checkpoint before. Raises StorageError."""
        self.wait()
        if step == self._saved_step:
            return
        started_at = perf_counter()
        copied = take()
        self.hold_s = perf_counter() - started_at
        self._begun_step = step
        self._next_at = math.inf
        self._writing = self._writer.submit(self._write, copied)

    def _write(self, copied: Snapshot) -> _Written:
        started_at = perf_counter()
        checkpoint = self._reporter.save(
            step=copied.state.step, contents=copied.pack(), metrics=self._metrics_of(copied.state)
        )
        return _Written(checkpoint=checkpoint, at=time(), write_s=perf_counter() - started_at)

    def _metrics_of(self, state: TrainingState) -> Mapping[str, float | None]:
        """What the best checkpoint is chosen by: the validation of these very weights, None if they had none."""
        is_evaluated = state.step in self._execution.evaluation_steps
        return {"top1": state.top1 if is_evaluated else None, "top5": state.top5 if is_evaluated else None}

    def look(self) -> bool:
        """Whether a checkpoint was committed since the last look. Raises StorageError if the recipe wants that."""
        return self._writing is not None and self._writing.done() and self.wait()

    def wait(self) -> bool:
        """Wait for the checkpoint that is being written; as `look`."""
        if self._writing is None:
            return False
        writing, self._writing = self._writing, None
        try:
            written = writing.result()
        except TakenOverError:
            raise
        except StorageError as error:
            self._not_saved(error)
            return False
        self._saved_step = written.checkpoint.step
        self.latest, self.latest_at = written.checkpoint, written.at
        self.write_s = written.write_s
        self.interval_s = self._best_interval_s()
        self._next_at = perf_counter() + self.interval_s
        return True

    def _not_saved(self, error: StorageError) -> None:
        self._fault = error
        goes_on = self._execution.on_save_failure == "continue"
        _log.warning("no checkpoint of step %d: %s", self._begun_step, error)
        self._reporter.event("checkpoint_failed", step=self._begun_step, reason=str(error), goes_on=goes_on)
        if not goes_on:
            raise error
        self._next_at = perf_counter() + RETRY_AFTER_S

    def finish(self, step: int, take: Callable[[], Snapshot]) -> None:
        """Return when the state after `step` is on storage; tries again for a while. Raises StorageError."""
        deadline = perf_counter() + LAST_PATIENCE_S
        while True:
            self.begin(step, take)
            self.wait()
            if self._saved_step == step:
                return
            assert self._fault is not None
            if perf_counter() >= deadline:
                raise self._fault
            sleep(LAST_TRY_PAUSE_S)

    def close(self) -> None:
        """Let the thread end."""
        self._writer.shutdown()
