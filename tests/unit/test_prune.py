"""`dnctl prune`: what goes, what never does, and that nobody is surprised by it."""

import json
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.run.catalogue import list_runs
from orchestrator.run.checkpoints import checkpoint_path, list_checkpoints, write_checkpoint
from orchestrator.run.directory import RunDirectory
from orchestrator.run.prune import delete, old_runs, whole_runs
from orchestrator.run.state import State, write_state
from tests.checkpoint_files import contents_of
from tests.run_directories import make_run, renew_lease

DAY_S = 86400.0


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def _run(
    runs: Path, name: str, state: State, *, days: float, checkpoints: dict[int, float | None] | None = None
) -> RunDirectory:
    """A run that ended so many days ago, with checkpoints: step to top-1."""
    run = make_run(runs, name, state=state)
    ended_at = time() - days * DAY_S
    finished_at = ended_at if state.is_finished else None
    write_state(run.state, replace(run.read_state(), updated_at=ended_at, finished_at=finished_at))
    for step, top1 in (checkpoints or {}).items():
        path = checkpoint_path(run.checkpoints, step=step, attempt=1)
        write_checkpoint(path, contents_of(step), metrics={"top1": top1}, may_commit=lambda: None)
    return run


def _prune(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["prune", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def _failing(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(app, ["prune", *arguments]).exception


def _names(runs: Path) -> set[str]:
    return {run.name for run in list_runs(runs)}


def test_old_finished_runs_go_and_young_ones_stay(runs: Path):
    _run(runs, "old", State.SUCCEEDED, days=31, checkpoints={5: 90.0})
    _run(runs, "young", State.SUCCEEDED, days=29)
    shown = _prune("--dry-run")
    assert (shown["is_done"], [each["run"] for each in shown["deletions"]]) == (False, ["old"])
    assert shown["bytes"] > 1000
    assert _names(runs) == {"old", "young"}
    assert _prune("-y")["is_done"]
    assert [entry.name for entry in runs.iterdir()] == ["young"]
    assert _prune("-y", "--older-than", "2w")["deletions"][0]["run"] == "young"


def test_the_newest_may_be_kept_whatever_their_age(runs: Path):
    for days in (1, 2, 3, 4):
        _run(runs, f"run{days}", State.SUCCEEDED, days=days)
    assert [each["run"] for each in _prune("--keep", "2", "-y")["deletions"]] == ["run4", "run3"]
    assert _prune("--keep", "0", "--older-than", "36h", "-y")["deletions"][0]["run"] == "run2"
    assert _names(runs) == {"run1"}


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED])
def test_a_run_that_can_be_resumed_goes_only_if_it_is_named(runs: Path, state: State):
    _run(runs, "run", state, days=99, checkpoints={5: None})
    _run(runs, "empty", state, days=99)
    document = _prune("-y")
    assert [each["run"] for each in document["deletions"]] == ["empty"]
    assert document["kept"] == [
        {"run": "run", "why": f"{state} with a checkpoint: it can be resumed; name it to delete it"}
    ]
    assert _prune("run", "-y")["is_done"]
    assert _names(runs) == set()


def test_a_living_run_never_goes(runs: Path):
    run = _run(runs, "run", State.RUNNING, days=99, checkpoints={5: 1.0, 6: 2.0})
    renew_lease(run, now=time())
    assert _prune("-y", "--older-than", "0m")["deletions"] == []
    assert _prune("-y", "--older-than", "0m", "--checkpoints")["deletions"] == []
    error = _failing("run", "-y")
    assert isinstance(error, UsageError)
    assert str(error) == "run is RUNNING: training; `dnctl stop --now run` first"


def test_a_lost_run_goes_only_if_it_is_named(runs: Path):
    _run(runs, "run", State.RUNNING, days=99).lease.unlink()
    document = _prune("-y")
    assert (document["deletions"], document["kept"][0]["why"][:4]) == ([], "LOST")
    _prune("run", "-y")
    assert _names(runs) == set()


def test_a_run_that_another_one_waits_for_stays(runs: Path):
    _run(runs, "first", State.SUCCEEDED, days=99)
    second = _run(runs, "second", State.PENDING, days=0)
    write_state(second.state, replace(second.read_state(), after=("first",)))
    assert _prune("-y")["kept"] == [{"run": "first", "why": "another run waits for it"}]
    error = _failing("first", "-y")
    assert isinstance(error, UsageError)
    assert str(error) == "second waits for first; delete that one first"
    assert "first" in _names(runs)


def test_of_checkpoints_the_newest_whole_one_and_the_best_stay(runs: Path):
    run = _run(runs, "run", State.STOPPED, days=99, checkpoints={1: 10.0, 2: 90.0, 3: 50.0, 4: 60.0, 5: 70.0})
    (checkpoint_path(run.checkpoints, step=5, attempt=1) / "model.safetensors").write_bytes(b"damaged")
    document = _prune("-y", "--checkpoints")
    assert [each["checkpoint"] for each in document["deletions"]] == ["step-00000001.1", "step-00000003.1"]
    assert [checkpoint.step for checkpoint in list_checkpoints(run.checkpoints)] == [2, 4, 5]


def test_where_no_checkpoint_is_whole_all_stay(runs: Path):
    run = _run(runs, "run", State.STOPPED, days=99, checkpoints={1: None, 2: None})
    for checkpoint in list_checkpoints(run.checkpoints):
        (checkpoint.path / "model.safetensors").unlink()
    assert _prune("-y", "--checkpoints")["deletions"] == []


def test_without_a_terminal_nothing_is_deleted_unasked(runs: Path):
    _run(runs, "run", State.SUCCEEDED, days=99)
    error = _failing()
    assert isinstance(error, UsageError)
    assert "nobody is here to be asked" in str(error)
    assert _names(runs) == {"run"}


@pytest.mark.parametrize(("answer", "left"), [("n\n", {"run"}), ("y\n", set())])
def test_a_person_is_asked_first(runs: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: set[str]):
    _run(runs, "run", State.SUCCEEDED, days=99)
    monkeypatch.setattr("orchestrator.cli.prune.someone_is_there", lambda: True)
    result: Result = CliRunner().invoke(app, ["prune"], input=answer, catch_exceptions=False)
    assert "run  SUCCEEDED  ended 99 d 00 h ago" in result.stdout
    assert "Delete 1 run, " in result.output
    assert _names(runs) == left


def test_a_run_that_was_resumed_meanwhile_stays(runs: Path):
    run = _run(runs, "run", State.SUCCEEDED, days=99)
    chosen, _ = old_runs(list_runs(runs), before=time(), keep=0, now=time())
    (deletion,), _ = whole_runs(chosen, are_named=False)
    write_state(run.state, replace(run.read_state(), state=State.PENDING))
    with pytest.raises(UsageError, match="run is alive by now; nothing of it was deleted"):
        delete(deletion)


def test_a_deletion_that_was_cut_short_is_finished_the_next_time(runs: Path):
    run = _run(runs, "run", State.SUCCEEDED, days=99)
    run.path.rename(runs / ".deleting-run-1234")
    assert _names(runs) == set()
    _prune("-y")
    assert list(runs.iterdir()) == []


def test_nonsense_is_refused(runs: Path):
    make_run(runs, "run", state=State.SUCCEEDED)
    assert "--older-than soon: allowed: a number and m, h, d or w" in str(_failing("-y", "--older-than", "soon"))
    assert "leave them out, or the names" in str(_failing("run", "-y", "--keep", "1"))
    assert isinstance(_failing("other", "-y"), NotFoundError)
