"""The run directory: runs, attempts, and how they end."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import DataError, NotFoundError, StorageError, UsageError
from orchestrator.run.directory import RunDirectory
from orchestrator.run.ending import Ending, failure, read_ending, record_ending
from orchestrator.run.state import State, write_state


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "runs" / "first")
    run.create(now=1000.0)
    return run


def test_a_new_run_is_pending(run: RunDirectory):
    record = run.read_state()
    assert (record.state, record.attempt, record.created_at) == (State.PENDING, 0, 1000.0)
    assert run.newest_attempt() == (0, "")


def test_a_run_is_created_once(run: RunDirectory):
    write_state(run.state, replace(run.read_state(), state=State.RUNNING))
    with pytest.raises(UsageError, match="run first exists already"):
        run.create(now=2000.0)
    assert run.read_state().state is State.RUNNING


def test_a_directory_without_a_state_is_no_run(tmp_path: Path):
    assert not RunDirectory(tmp_path).exists()
    with pytest.raises(NotFoundError, match="there is no run at"):
        RunDirectory(tmp_path).read_state()


@pytest.mark.parametrize("damage", ['"state": "RUNING"', '"state": null', '"shape": 1'])
def test_a_damaged_state_is_named(run: RunDirectory, damage: str):
    run.state.write_text(run.state.read_text().replace('"state": "PENDING"', damage))
    with pytest.raises(StorageError, match=r"state.json is damaged"):
        run.read_state()


def test_racing_claimers_get_numbers_without_gaps(run: RunDirectory):
    holders = [f"holder{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        claimed = dict(zip(holders, pool.map(run.claim_attempt, holders), strict=True))
    assert sorted(attempt.number for attempt in claimed.values()) == list(range(1, 25))
    assert [attempt.number for attempt in run.attempts()] == list(range(1, 25))
    last = next(holder for holder, attempt in claimed.items() if attempt.number == 24)
    assert run.newest_attempt() == (24, last)


def test_a_number_whose_claimer_died_before_it_had_it_is_given_to_the_next(run: RunDirectory):
    run.claim_attempt("first")
    run.attempt(2).logs.mkdir(parents=True)
    assert run.newest_attempt() == (1, "first")
    assert run.claim_attempt("second").number == 2


def test_the_tenth_attempt_comes_after_the_ninth(run: RunDirectory):
    for number in range(1, 11):
        assert run.claim_attempt(f"holder{number}").number == number
    assert run.newest_attempt() == (10, "holder10")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format_version": 1}'], ids=["empty", "list", "no holder"])
def test_a_damaged_owner_is_named(run: RunDirectory, content: bytes):
    run.claim_attempt("first").owner.write_bytes(content)
    with pytest.raises(StorageError, match=r"attempts/1/owner.json"):
        run.newest_attempt()


def test_the_first_word_on_how_an_attempt_ended_stays(run: RunDirectory):
    attempt = run.claim_attempt("first")
    assert read_ending(attempt) is None
    record_ending(attempt, failure(DataError("a.jpg is no image")))
    record_ending(attempt, Ending(outcome="finished", reason="trained 3 epochs", exit_code=0))
    assert read_ending(attempt) == Ending(outcome="failed", reason="a.jpg is no image", exit_code=2)
