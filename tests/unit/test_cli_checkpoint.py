"""`dnctl checkpoint list` and `verify`."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.errors import NotFoundError
from orchestrator.run.checkpoints import COMMITTED, checkpoint_path, write_checkpoint
from orchestrator.run.contents import MODEL
from orchestrator.run.directory import RunDirectory
from tests import report_runs
from tests.checkpoint_files import contents_of
from tests.run_directories import make_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = make_run(tmp_path / "runs", "first", num_rows=2)
    for step, top1 in ((240, 50.0), (480, 60.5), (500, None)):
        path = checkpoint_path(made.checkpoints, step=step, attempt=1)
        write_checkpoint(path, contents_of(step), metrics={"top1": top1}, may_commit=lambda: None)
    return made


def damage(run: RunDirectory, step: int) -> None:
    path = checkpoint_path(run.checkpoints, step=step, attempt=1) / MODEL
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def dnctl(*arguments: str, exit_code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["checkpoint", *arguments])
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


def test_the_list_says_of_each_checkpoint_what_is_known_without_reading_it(run: RunDirectory):
    damage(run, 240)
    (run.checkpoints / "step-00000510.1").mkdir()
    listed = dnctl("list", "first", "--json")["checkpoints"]
    assert [(each["step"], each["top1"], each["verdict"]) for each in listed] == [
        (240, 50.0, "committed"),
        (480, 60.5, "committed"),
        (500, None, "committed"),
        (510, None, "not committed"),
    ]
    assert listed[0]["bytes"] == sum(map(len, contents_of(240).values()))
    assert 0 <= listed[0]["age_s"] < 60
    printed = dnctl("list", "first")
    assert "step-00000480.1" in printed
    assert "60.50" in printed


def test_the_epoch_is_known_by_the_plan(tmp_path: Path):
    made = report_runs.make_run(tmp_path / "runs", "second", "demo", epochs_done=1)
    path = checkpoint_path(made.checkpoints, step=48, attempt=1)
    write_checkpoint(path, contents_of(48), metrics={}, may_commit=lambda: None)
    assert [each["epoch"] for each in dnctl("list", "second", "--json")["checkpoints"]] == [2.0]


def test_what_is_whole_is_said_and_which_one_a_resume_takes(run: RunDirectory):
    document = dnctl("verify", "first", "--json")
    assert (document["whole"], document["resume"]) == (True, "step-00000500.1")
    assert {each["verdict"] for each in document["checkpoints"]} == {"whole"}
    assert "A resume would take step-00000500.1." in dnctl("verify", "first")


def test_a_damaged_one_is_named_with_its_fault_and_the_one_before_is_taken(run: RunDirectory):
    damage(run, 500)
    document = dnctl("verify", "first", "--json", exit_code=7)
    assert (document["whole"], document["resume"]) == (False, "step-00000480.1")
    assert "doesn't have the SHA-256 that it was written with" in document["checkpoints"][-1]["fault"]
    printed = dnctl("verify", "first", exit_code=7)
    assert "step-00000500.1 is damaged: model.safetensors" in printed
    assert "A resume would take step-00000480.1." in printed


def test_where_none_is_whole_a_resume_finds_none(run: RunDirectory):
    for step in (240, 480, 500):
        damage(run, step)
    assert "A resume finds none to go on from." in dnctl("verify", "first", exit_code=7)


def test_one_that_was_never_committed_is_absent_in_a_run_and_not_whole_by_itself(run: RunDirectory):
    path = checkpoint_path(run.checkpoints, step=500, attempt=1)
    (path / COMMITTED).unlink()
    assert dnctl("verify", "first", "--json")["resume"] == "step-00000480.1"
    assert dnctl("verify", str(path), "--json", exit_code=7)["checkpoints"][0]["verdict"] == "not committed"


def test_one_checkpoint_is_verified_by_its_path(run: RunDirectory):
    path = checkpoint_path(run.checkpoints, step=480, attempt=1)
    (each,) = dnctl("verify", str(path), "--json")["checkpoints"]
    assert (each["step"], each["verdict"]) == (480, "whole")
    damage(run, 480)
    dnctl("verify", str(path), exit_code=7)


def test_no_such_run_and_no_checkpoint_exit_with_3(run: RunDirectory):
    for arguments in (["verify", "nothing"], ["list", "nothing"]):
        result = CliRunner().invoke(app, ["checkpoint", *arguments])
        assert isinstance(result.exception, NotFoundError)
    make_run(run.path.parent, "second", num_rows=1)
    result = CliRunner().invoke(app, ["checkpoint", "verify", "second"])
    assert isinstance(result.exception, NotFoundError)
    assert "second has no checkpoint yet" in str(result.exception)
    assert "has no checkpoint yet" in dnctl("list", "second")
