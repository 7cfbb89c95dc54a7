"""The driver of a run: the entry point of its Ray job, run as `python -m orchestrator.engine.driver RUN_DIRECTORY`.

It holds the run's lease, is the only writer of state.json while it does, and may be started again at any time: then it
takes the next attempt number, which shuts out whatever is left of the one before, and training goes on from the newest
whole checkpoint.
"""

import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, RLock, Thread
from time import time

from orchestrator.engine.turn import Tell, Turn
from orchestrator.errors import ClusterError, DnctlError, RunStoppedError
from orchestrator.redaction import RedactingFormatter
from orchestrator.run import files
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.ending import Ending, failure, read_ending
from orchestrator.run.lease import LeaseKeeper, living_holder
from orchestrator.run.patience import patiently
from orchestrator.run.pause import read_pause_request
from orchestrator.run.progress import read_progress
from orchestrator.run.state import State, write_state
from orchestrator.run.stop import read_stop_request

_log = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(name)s: %(message)s"
POLL_INTERVAL_S = 0.5
MAX_REASON_LENGTH = 300
_FINAL_STATE = {"finished": State.SUCCEEDED, "stopped": State.STOPPED, "failed": State.FAILED}

Fit = Callable[[RunDirectory, AttemptDirectory, str, Tell], None]
"""Trains until the end: (run, first attempt, holder, tell). How it ended is in the newest attempt's ending.json."""


def main() -> int:
    """Drive the run that the command line names, with Ray."""
    from orchestrator.engine.trainer import fit_with_ray  # imports ray

    log_to_stderr()
    return drive(RunDirectory(Path(sys.argv[1])), fit_with_ray)


def log_to_stderr() -> None:
    """Log what happens, for the job's own log."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def drive(run: RunDirectory, fit: Fit, *, may_wait: bool = True) -> int:
    """Take the run over, train, and record how it ended; returns the exit code that belongs to that.

    may_wait: whether other runs may be waited for here; not where the wait would hold what they need.
    """
    _refuse_while_driven(run)
    if run.read_state().state is State.SUCCEEDED:
        _log.info("run %s is finished; there is nothing to do", run.name)
        return 0
    holder = secrets.token_hex(8)
    attempt = run.claim_attempt(holder, submitted_at=run.read_state().updated_at)
    log_file = logging.FileHandler(attempt.logs / "driver.log")
    log_file.setFormatter(RedactingFormatter(LOG_FORMAT))
    logging.getLogger().addHandler(log_file)
    keeper = LeaseKeeper(run.lease, holder=holder, newest_attempt=run.newest_attempt)
    _log.info("attempt %d of %s begins", attempt.number, run.name)
    recorder = _StateRecorder(run, attempt, keeper.taken_over)
    try:
        ending = _fit(
            run, attempt, holder, fit, recorder.write, Turn(run, attempt, keeper.taken_over, may_wait=may_wait)
        )
        recorder.close()
        if keeper.taken_over.is_set():
            _log.warning("the run was taken over by a newer attempt; this driver writes nothing more")
            return ClusterError.exit_code
        _log.info("attempt %d %s: %s", attempt.number, ending.outcome, ending.reason)
        if ending.outcome == "stopped" and _is_to_be_queued_again(run):
            run.stop_request.unlink()
            recorder.write(State.PENDING, "its time on the cluster was up: checkpoint saved, waiting for the next turn")
        else:
            final = _FINAL_STATE[ending.outcome]
            patiently(lambda: recorder.write(final, ending.reason, exit_code=ending.exit_code))
        return ending.exit_code
    finally:
        keeper.close()
        logging.getLogger().removeHandler(log_file)
        log_file.close()


def _is_to_be_queued_again(run: RunDirectory) -> bool:
    """Whether it was the cluster's queue, and no person, that asked for the stop."""
    request = read_stop_request(run.stop_request)
    return request is not None and request.requeue


def _fit(run: RunDirectory, attempt: AttemptDirectory, holder: str, fit: Fit, tell: Tell, turn: Turn) -> Ending:
    try:
        if not turn.come(tell):
            return Ending(outcome="failed", reason="taken over", exit_code=ClusterError.exit_code)
        fit(run, attempt, holder, tell)
    except DnctlError as error:
        return failure(error)
    except Exception as error:  # whatever Ray raises: the run has failed, and state.json must say so
        _log.exception("training failed")
        said = patiently(lambda: _said(run))
        return said or Ending(outcome="failed", reason=_in_one_line(error), exit_code=DnctlError.exit_code)
    return patiently(lambda: _said(run)) or Ending(
        outcome="failed", reason=f"the workers ended without a word; see {run.path / 'attempts'}", exit_code=1
    )


def _said(run: RunDirectory) -> Ending | None:
    """How the newest attempt ended by its own account."""
    return read_ending(run.attempt(run.newest_attempt()[0]))


def _in_one_line(error: Exception) -> str:
    """Ray's errors hold whole logs; their beginning says what happened, the driver's log has the rest."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:MAX_REASON_LENGTH] or 'no message'}; see the driver's log"


def _refuse_while_driven(run: RunDirectory) -> None:
    """Raise ClusterError if another driver is alive; waits for the lease of one that was killed just now."""
    holder = None if run.read_state().state.is_finished else living_holder(run.lease)
    if holder is not None:
        raise ClusterError(
            f"run {run.name} is being driven by process {holder.process_id} on {holder.host}, attempt "
            f"{holder.attempt}; `dnctl stop {run.name}` ends it"
        )


class _StateRecorder:
    """Keeps state.json true while the run is driven: follows what workers leave in the run directory."""

    def __init__(self, run: RunDirectory, attempt: AttemptDirectory, taken_over: Event) -> None:
        self._run = run
        self._taken_over = taken_over
        self._lock = RLock()
        self._closing = Event()
        self._num_failures = 0
        before = run.read_state()
        self._record = replace(before, attempt=attempt.number, finished_at=None, exit_code=None)
        self.write(State.STARTING, "starting the workers")
        signal.signal(signal.SIGTERM, lambda *_: self._end_at_once())
        self._thread = Thread(target=self._follow, name="state", daemon=True)
        self._thread.start()

    def write(self, state: State, reason: str, *, exit_code: int | None = None) -> None:
        """Record a state, if it is news and the run is still ours."""
        with self._lock:
            attempt = self._run.newest_attempt()[0]
            if (state, reason, attempt) == (self._record.state, self._record.reason, self._record.attempt):
                return
            if self._taken_over.is_set():
                return
            now = time()
            record = replace(
                self._record,
                state=state,
                reason=reason,
                attempt=attempt,
                updated_at=now,
                finished_at=now if state.is_finished else None,
                exit_code=exit_code,
            )
            write_state(self._run.state, record)
            self._record = record

    def close(self) -> None:
        """Follow no more."""
        self._closing.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._closing.wait(POLL_INTERVAL_S):
            try:
                self._look()
            except (DnctlError, OSError, KeyError) as error:  # a storage that fails for a moment: look again
                _log.warning("%s", error)

    def _look(self) -> None:
        attempt = self._run.attempt(self._run.newest_attempt()[0])
        failures = attempt.worker_failures
        if failures:
            self.write(State.RECOVERING, files.read_json(failures[-1])["reason"])
        elif (progress := read_progress(attempt.progress)) is not None:
            if (stop := read_stop_request(self._run.stop_request)) is not None:
                doing = "ending at once" if stop.now else "saving a checkpoint"
                self.write(State.STOPPING, f"{doing}: {stop.reason or 'a stop was asked for'}")
            elif (pause := read_pause_request(attempt.pause_request)) is not None:
                self.write(State.RUNNING, f"{pause.reason}; saving a checkpoint")
            else:
                self.write(State.RUNNING, progress.activity)

    def _end_at_once(self) -> None:
        """SIGTERM: the job is being stopped; there are seconds left."""
        if not self._has_said_how_it_ended():
            if _is_to_be_queued_again(self._run):
                self.write(State.PENDING, "its time on the cluster was up before it had saved: waiting for its turn")
            elif self._run.stop_request.exists():
                self.write(State.STOPPED, "stopped at once, without a checkpoint", exit_code=RunStoppedError.exit_code)
            else:
                self.write(State.FAILED, "the cluster ended the driver (SIGTERM)", exit_code=ClusterError.exit_code)
        os._exit(143)

    def _has_said_how_it_ended(self) -> bool:
        return self._closing.is_set() and (self._record.state.is_finished or self._record.state is State.PENDING)


if __name__ == "__main__":
    sys.exit(main())
