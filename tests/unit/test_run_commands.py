"""`dnctl list`, `status`, `stop` and `eval` on run directories, without a cluster."""

import json
import re
from dataclasses import replace
from pathlib import Path
from time import time

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.engine.planning import write_recipe
from orchestrator.errors import CheckpointError, ClusterError, NotFoundError, StorageError, UsageError
from orchestrator.recipe.load import load_recipe
from orchestrator.run.checkpoints import MANIFEST, checkpoint_path, write_checkpoint
from orchestrator.run.directory import RunDirectory
from orchestrator.run.lease import LeaseKeeper
from orchestrator.run.progress import Progress, write_progress
from orchestrator.run.state import State, write_state
from tests.run_directories import STRAGGLER, make_run, make_workers


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def _create(runs: Path, name: str, state: State) -> RunDirectory:
    run = RunDirectory(runs / name)
    run.create(now=time() - 100)
    write_recipe(run, load_recipe("demo"))
    attempt = run.claim_attempt("holder")
    figures = Progress(
        step=5, num_steps=10, epoch=1, num_epochs=2, steps_per_epoch=5, world_size=1, loss=1.25, learning_rate=0.1
    )
    write_progress(attempt.progress, figures)
    write_state(run.state, replace(run.read_state(), state=state, reason="[why not]", attempt=1))
    return run


def _dnctl(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_list_shows_each_run_as_status_does(runs: Path):
    for name, state in (("first", State.SUCCEEDED), ("second", State.RUNNING)):
        _create(runs, name, state)
    listed = json.loads(_dnctl("list", "--json"))
    assert {run["run"]: run["state"] for run in listed} == {"first": "SUCCEEDED", "second": "LOST"}
    assert listed[0] == json.loads(_dnctl("status", "first", "--json"))
    assert re.search(r"second +LOST +1/2 +5/10 +1\.2500", _dnctl("list"))


def test_list_without_runs_says_how_to_start_one(runs: Path):
    assert json.loads(_dnctl("list", "--json")) == []
    assert _dnctl("list") == f"No runs in {runs} yet. `dnctl launch RECIPE` starts one.\n"


def test_list_shows_the_other_runs_when_one_is_damaged(runs: Path):
    _create(runs, "first", State.SUCCEEDED)
    _create(runs, "second", State.SUCCEEDED).state.write_text("{")
    result = CliRunner().invoke(app, ["list"])
    assert "first" in result.stdout
    assert isinstance(result.exception, StorageError)
    assert "second/state.json is damaged" in str(result.exception)


def test_status_says_what_is_known_and_what_comes_next(runs: Path):
    run = _create(runs, "first", State.FAILED)
    shown = _dnctl("status", "last")
    for part in ("FAILED  [why not]", "5/10, epoch 1 of 2 done", "loss", "1.2500", str(run.path)[:40], "none yet"):
        assert part in shown
    assert shown.rstrip().endswith("next: dnctl resume first   dnctl logs first")


def test_status_of_a_running_run_says_who_is_slow_and_where_it_can_be_watched(runs: Path):
    run = make_run(runs, "first", workers=make_workers(2, stragglers=[STRAGGLER]))
    write_state(run.state, replace(run.read_state(), job_id="first-1", cluster_address="http://head:8265"))
    shown = " ".join(_dnctl("status", "first").split())
    for part in ("slow worker 1 on node-0 is slow in compute", "http://head:8265", "dnctl logs -f first", "s old"):
        assert part in shown
    document = json.loads(_dnctl("status", "first", "--json"))
    assert document["dashboard"] == "http://head:8265"
    assert document["stragglers"][0]["rank"] == 1
    assert document["logs"] == str(run.attempt(1).logs)
    assert 10 < document["last_checkpoint_age_s"] < 100


def test_a_stop_is_a_request_that_may_be_made_twice(runs: Path):
    run = _create(runs, "first", State.RUNNING)
    keeper = LeaseKeeper(run.lease, holder="holder", newest_attempt=run.newest_attempt)
    for _ in range(2):
        assert "first will save a checkpoint after its next step and stop" in _dnctl("stop", "first")
    keeper.close()
    assert run.stop_request.is_file()


def test_a_run_that_nobody_drives_can_be_given_up_but_not_stopped(runs: Path):
    run = _create(runs, "first", State.RUNNING)
    with pytest.raises(UsageError, match="first is LOST: nobody is there to save a checkpoint"):
        _dnctl("stop", "first")
    assert not run.stop_request.exists()
    _dnctl("stop", "first", "--now")
    record = run.read_state()
    assert (record.state, record.exit_code) == (State.STOPPED, 6)


def test_a_run_of_a_cluster_that_is_not_reached_is_not_called_stopped(runs: Path):
    run = _create(runs, "first", State.RUNNING)
    keeper = LeaseKeeper(run.lease, holder=run.newest_attempt()[1], newest_attempt=run.newest_attempt)
    try:
        with pytest.raises(ClusterError, match="whose cluster isn't reached from here"):
            _dnctl("stop", "first", "--now")
    finally:
        keeper.close()
    assert run.read_state().state is State.RUNNING
    assert not run.stop_request.exists()


def test_a_finished_run_is_not_stopped_again(runs: Path):
    run = _create(runs, "first", State.SUCCEEDED)
    assert _dnctl("stop", "first") == "first is SUCCEEDED already: [why not]\n"
    assert not run.stop_request.exists()


def test_a_checkpoint_without_its_manifest_is_called_damaged(runs: Path):
    path = checkpoint_path(_create(runs, "first", State.STOPPED).checkpoints, step=1, attempt=1)
    write_checkpoint(path, {}, metrics={}, may_commit=lambda: None)
    (path / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match=f"{MANIFEST} is missing"):
        _dnctl("eval", str(path))


def test_a_run_without_a_checkpoint_is_not_evaluated(runs: Path):
    _create(runs, "first", State.FAILED)
    with pytest.raises(NotFoundError, match="run first has no checkpoint yet"):
        _dnctl("eval", "first")


def test_damaged_checkpoints_are_passed_over_out_loud(runs: Path):
    run = _create(runs, "first", State.FAILED)
    for step in (1, 2):
        path = checkpoint_path(run.checkpoints, step=step, attempt=1)
        write_checkpoint(path, {"state.json": b"{}"}, metrics={}, may_commit=lambda: None)
        (path / "state.json").write_bytes(b"[]")
    result = CliRunner().invoke(app, ["eval", "first"])
    assert isinstance(result.exception, CheckpointError)
    assert str(result.exception) == "none of the 2 checkpoints of run first verifies"
    assert result.stderr.count("passed over: checkpoint") == 2
