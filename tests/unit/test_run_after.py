"""Which order of runs may be asked for, and that a run which was just submitted isn't submitted again."""

from dataclasses import replace
from pathlib import Path
from time import time

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.cli.submit import SUBMISSION_S, fault_of_pending
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.run.after import in_words
from orchestrator.run.directory import RunDirectory
from orchestrator.run.state import State, write_state
from orchestrator.run.status import read_status
from tests.run_directories import make_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def _launch(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(app, ["launch", "demo", "-d", *arguments]).exception


def test_a_run_that_is_to_be_waited_for_must_be_there(runs: Path):
    make_run(runs, "first")
    error = _launch("--name", "second", "--after", "other")
    assert isinstance(error, NotFoundError)
    assert "there is no run 'other'" in str(error)
    assert not (runs / "second").exists()


def test_a_run_cannot_wait_for_itself(runs: Path):
    make_run(runs, "first", state=State.STOPPED)
    error = _launch("--name", "first", "--after", "first")
    assert isinstance(error, UsageError)
    assert "can't wait for itself" in str(error)


def test_runs_cannot_wait_in_a_circle(runs: Path):
    make_run(runs, "first", state=State.STOPPED)
    for name, before in (("second", "first"), ("third", "second")):
        run = make_run(runs, name, state=State.PENDING)
        write_state(run.state, replace(run.read_state(), after=(before,)))
    error = _launch("--name", "first", "--after", "third")
    assert isinstance(error, UsageError)
    assert "third itself waits for first to end" in str(error)


@pytest.mark.parametrize("state", [State.FAILED, State.STOPPED])
def test_a_run_that_has_ended_badly_is_not_waited_for(runs: Path, state: State):
    make_run(runs, "first", state=state)
    error = _launch("--name", "second", "--after", "first")
    assert isinstance(error, UsageError)
    assert f"first is {state} (training), so there is nothing to wait for; `dnctl resume first` first" in str(error)


def test_several_are_named_in_one_sentence():
    assert in_words(["a"]) == "waits for a to end"
    assert in_words(["a", "b", "c"]) == "waits for a, b and c to end"


def test_a_run_that_is_being_submitted_is_not_submitted_again(runs: Path):
    run = RunDirectory(runs / "new")
    run.create(now=time())
    assert fault_of_pending(read_status(run, now=time())) is None
    assert fault_of_pending(read_status(run, now=time() + SUBMISSION_S + 1)) == "its cluster is gone"


def test_of_two_that_go_on_with_a_run_at_once_one_submits_it(runs: Path):
    run = make_run(runs, "run", state=State.STOPPED)
    seen = run.num_submissions()
    assert [run.claim_submission(seen), run.claim_submission(seen)] == [True, False]
    assert run.claim_submission(run.num_submissions())
