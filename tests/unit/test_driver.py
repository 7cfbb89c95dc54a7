"""The driver of a run, without Ray: it can be started at any time, and says truly how a run ended."""

import signal
from collections.abc import Iterator
from pathlib import Path
from time import sleep, time

import pytest

from orchestrator.engine.driver import Tell, drive
from orchestrator.errors import CheckpointError
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.ending import Ending, record_ending
from orchestrator.run.lease import RENEWAL_INTERVAL_S
from orchestrator.run.state import State


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


def test_workers_that_end_without_a_word_are_a_failure(run: RunDirectory):
    assert drive(run, lambda *_: None) == 1
    assert run.read_state().state is State.FAILED
