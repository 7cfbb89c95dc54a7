"""The driver of a run, without Ray: it can be started at any time, and says truly how a run ended."""

import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread, Timer
from time import monotonic, sleep, time

import pytest

from orchestrator.engine import turn
from orchestrator.engine.driver import Fit, drive
from orchestrator.engine.turn import Tell
from orchestrator.errors import CheckpointError, ClusterError
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.ending import Ending, record_ending
from orchestrator.run.lease import RENEWAL_INTERVAL_S, living_holder
from orchestrator.run.state import State, write_state
from orchestrator.run.status import read_status
from tests.run_directories import make_run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    """A run that was just made; the driver's handling of SIGTERM is taken back."""
    before = signal.getsignal(signal.SIGTERM)
    directory = RunDirectory(tmp_path / "run")
    directory.create(now=time())
    yield directory
    signal.signal(signal.SIGTERM, before)


def finishes(run: RunDirectory, attempt: AttemptDirectory, holder: str, tell: Tell) -> None:
    record_ending(attempt, Ending(outcome="finished", reason="trained", exit_code=0))


def test_how_the_workers_ended_is_the_state_of_the_run(run: RunDirectory):
    assert drive(run, finishes) == 0
    record = run.read_state()
    assert (record.state, record.reason, record.attempt, record.exit_code) == (State.SUCCEEDED, "trained", 1, 0)


def test_a_driver_started_again_on_a_finished_run_does_nothing(run: RunDirectory):
    drive(run, finishes)
    before = run.read_state()
    assert drive(run, finishes) == 0
    assert run.read_state() == before
    assert len(run.attempts()) == 1


def test_a_driver_started_again_on_a_failed_run_takes_the_next_attempt(run: RunDirectory):
    def fails(run: RunDirectory, attempt: AttemptDirectory, holder: str, tell: Tell) -> None:
        raise CheckpointError("checkpoint step-3.1 is damaged")

    assert drive(run, fails) == CheckpointError.exit_code
    assert run.read_state().state is State.FAILED
    assert drive(run, finishes) == 0
    assert (run.read_state().state, run.read_state().attempt) == (State.SUCCEEDED, 2)


def test_a_driver_that_was_taken_over_writes_nothing_more(run: RunDirectory):
    def is_taken_over(run: RunDirectory, attempt: AttemptDirectory, holder: str, tell: Tell) -> None:
        run.claim_attempt("another")
        sleep(2 * RENEWAL_INTERVAL_S)

    assert drive(run, is_taken_over) == 4
    assert run.read_state().state is State.STARTING
    assert run.newest_attempt() == (2, "another")


@pytest.fixture
def waiting(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """The run is to begin after another one, which runs."""
    monkeypatch.setattr(turn, "LOOK_INTERVAL_S", 0.05)
    make_run(run.path.parent, "first")
    write_state(run.state, replace(run.read_state(), after=("first",)))
    return run


def in_the_background(run: RunDirectory, fit: Fit) -> Thread:
    """A driver; its handler of SIGTERM is the test's main thread's business."""
    thread = Thread(target=drive, args=(run, fit))
    thread.start()
    return thread


def until(holds: Callable[[], bool]) -> None:
    deadline = monotonic() + 30
    while not holds():
        assert monotonic() < deadline
        sleep(0.02)


def end(run: RunDirectory, state: State, reason: str) -> None:
    write_state(run.state, replace(run.read_state(), state=state, reason=reason, finished_at=time()))


def test_a_run_begins_when_the_one_before_it_has_succeeded(waiting: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    begun = Event()

    def notes_it(run: RunDirectory, attempt: AttemptDirectory, holder: str, tell: Tell) -> None:
        begun.set()
        finishes(run, attempt, holder, tell)

    driver = in_the_background(waiting, notes_it)
    until(lambda: read_status(waiting, now=time()).reason == "waits for first to end")
    status = read_status(waiting, now=time())
    assert (status.state, begun.is_set()) == (State.PENDING, False)
    assert living_holder(waiting.lease) is not None, "it would be LOST if its driver died"
    end(RunDirectory(waiting.path.parent / "first"), State.SUCCEEDED, "trained")
    driver.join(30)
    assert begun.is_set()
    assert waiting.read_state().state is State.SUCCEEDED
    assert waiting.attempt(1).began.exists(), "what came before it is queueing"


def test_a_run_that_waits_outlasts_a_storage_that_is_away(waiting: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    driver = in_the_background(waiting, finishes)
    until(lambda: read_status(waiting, now=time()).reason == "waits for first to end")
    runs, away = waiting.path.parent, waiting.path.parent.with_name("away")
    runs.rename(away)
    runs.mkdir()  # the mount point, empty
    sleep(0.5)
    runs.rmdir()
    away.rename(runs)
    first = RunDirectory(runs / "first")
    whole = first.state.read_bytes()
    first.state.write_text("{")
    until(lambda: read_status(waiting, now=time()).reason == turn.UNSAID)
    first.state.write_bytes(whole)
    end(first, State.SUCCEEDED, "trained")
    driver.join(30)
    assert waiting.read_state().state is State.SUCCEEDED


@pytest.mark.parametrize("state", [State.FAILED, State.STOPPED])
def test_a_run_fails_with_the_reason_of_the_one_it_waits_for(waiting: RunDirectory, state: State):
    end(RunDirectory(waiting.path.parent / "first"), state, "no disk")
    assert drive(waiting, finishes) == 1
    reason = waiting.read_state().reason
    assert waiting.read_state().state is State.FAILED
    assert f"after first, which {state}: no disk; `dnctl resume first`, then `dnctl resume run --after first`" in reason


def test_a_run_fails_when_the_one_it_waits_for_is_deleted(waiting: RunDirectory):
    shutil.rmtree(waiting.path.parent / "first")
    assert drive(waiting, finishes) == 1
    assert "there is no such run any more" in waiting.read_state().reason


def test_a_place_in_slurms_queue_is_not_held_for_a_run_that_waits(waiting: RunDirectory):
    assert drive(waiting, finishes, may_wait=False) == ClusterError.exit_code
    assert "it waits for first to end; `dnctl resume` it after that" in waiting.read_state().reason


def test_workers_that_end_without_a_word_are_a_failure(run: RunDirectory):
    assert drive(run, lambda *_: None) == 1
    assert run.read_state().state is State.FAILED


def test_a_driver_waits_for_a_storage_that_is_away_when_the_workers_end(run: RunDirectory):
    away = run.path.with_name("away")

    def finishes_without_storage(run: RunDirectory, attempt: AttemptDirectory, holder: str, tell: Tell) -> None:
        finishes(run, attempt, holder, tell)
        run.path.rename(away)
        Timer(0.5, lambda: away.rename(run.path)).start()

    assert drive(run, finishes_without_storage) == 0
    assert run.read_state().state is State.SUCCEEDED
