"""`dnctl logs` and `dnctl wait`: to the end of the run, whatever the storage does, and with what the run came to."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from time import sleep, time

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import until_ended
from orchestrator.cli.app import app
from orchestrator.errors import NotFoundError, StorageError, TimedOutError, UsageError
from orchestrator.run.directory import RunDirectory
from orchestrator.run.state import State, write_state
from tests.run_directories import make_run, renew_lease


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDirectory]:
    """A run that is alive for as long as a test takes."""
    monkeypatch.setattr(until_ended, "LOST_GRACE_S", 1.0)
    monkeypatch.setattr(until_ended, "SILENCE_S", 0.3)
    run = make_run(runs, "first", num_rows=0)
    renew_lease(run, now=time(), duration_s=1e6)
    run.attempt(1).rank_log(0).write_text("zero begins\n")
    run.attempt(1).rank_log(1).write_text("one begins\n")
    return run


def _dnctl(*arguments: str, fails: bool = False) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=fails)


def _end(run: RunDirectory, state: State, exit_code: int) -> None:
    record = replace(run.read_state(), state=state, reason="so it ended", finished_at=time(), exit_code=exit_code)
    write_state(run.state, record)


def _later(*actions: object) -> Thread:
    """Do things from a thread; numbers are pauses in seconds."""

    def act() -> None:
        for action in actions:
            sleep(action) if isinstance(action, float) else action()

    thread = Thread(target=act, daemon=True)
    thread.start()
    return thread


def test_logs_of_all_processes_have_a_prefix_and_those_of_one_have_none(run: RunDirectory):
    assert _dnctl("logs", "first").stdout == "  rank 0 │ zero begins\n  rank 1 │ one begins\n"
    assert _dnctl("logs", "first", "--rank", "1").stdout == "one begins\n"
    (run.attempt(1).logs / "driver.log").write_text("driving\n")
    assert _dnctl("logs", "first", "--driver").stdout == "driving\n"
    documents = [json.loads(line) for line in _dnctl("logs", "first", "--json").stdout.splitlines()]
    assert documents[1] == {"attempt": 1, "rank": 0, "text": "zero begins"}


def test_logs_of_a_worker_that_never_was_are_not_found(run: RunDirectory):
    with pytest.raises(NotFoundError, match="first has no worker 7: its ranks are 0 to 1"):
        _dnctl("logs", "first", "--rank", "7")
    with pytest.raises(UsageError, match="--driver and --rank exclude each other"):
        _dnctl("logs", "first", "--rank", "1", "--driver")


def test_logs_that_are_not_there_yet_are_no_fault(runs: Path):
    RunDirectory(runs / "new").create(now=0.0)
    result = _dnctl("logs", "new")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "new is PENDING and has no such log yet: created" in result.stderr


@pytest.mark.parametrize(("state", "exit_code"), [(State.SUCCEEDED, 0), (State.STOPPED, 6), (State.FAILED, 5)])
def test_followed_logs_end_with_the_run_and_with_what_it_came_to(run: RunDirectory, state: State, exit_code: int):
    def last_words() -> None:
        run.attempt(1).rank_log(1).write_text("one begins\none ends")
        _end(run, state, exit_code)

    _later(0.5, last_words)
    result = _dnctl("logs", "first", "-f")
    assert result.exit_code == exit_code
    assert result.stdout.endswith("rank 1 │ one ends\n")
    assert f"first is {state}: so it ended" in result.stderr


def test_followed_logs_of_a_run_that_is_lost_never_look_like_success(run: RunDirectory):
    renew_lease(run, now=time() - 100)
    assert _dnctl("logs", "first", "-f").exit_code == 4


def test_a_run_that_reads_lost_for_a_moment_is_waited_for(run: RunDirectory):
    renew_lease(run, now=time() - 100)
    _later(0.6, lambda: renew_lease(run, now=time(), duration_s=1e6), 1.0, lambda: _end(run, State.SUCCEEDED, 0))
    assert _dnctl("wait", "first").exit_code == 0


def test_following_survives_a_storage_that_fails_for_a_while_and_says_so(run: RunDirectory):
    state = run.state.read_text()
    _later(
        0.6,
        lambda: run.state.write_text("{"),
        1.5,
        lambda: run.state.write_text(state),
        1.0,
        lambda: _end(run, State.SUCCEEDED, 0),
    )
    result = _dnctl("logs", "first", "-f")
    assert result.exit_code == 0
    assert "state.json is damaged" in result.stderr
    assert "the storage answers again, after" in result.stderr


def test_a_storage_that_stays_away_ends_in_its_fault(run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(until_ended, "PATIENCE_S", 1.0)
    run.state.write_text("{")
    result = _dnctl("wait", "first", fails=True)
    assert isinstance(result.exception, StorageError)


def test_waiting_ends_in_time_even_if_the_storage_hangs(run: RunDirectory):
    run.lease.unlink()
    os.mkfifo(run.lease)  # reading it waits for good, as a hung NFS would
    with pytest.raises(TimedOutError, match=r"first hasn't ended within 1\.0 s"):
        _dnctl("wait", "first", "--timeout", "1")


def test_waiting_for_a_run_gives_what_it_came_to(run: RunDirectory):
    with pytest.raises(TimedOutError) as error:
        _dnctl("wait", "first", "--timeout", "0.2")
    assert error.value.exit_code == 124
    _end(run, State.FAILED, 7)
    result = _dnctl("wait", "first", "--json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (7, "FAILED")
    assert _dnctl("wait", "first").stdout == "first is FAILED: so it ended\n"
