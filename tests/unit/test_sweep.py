"""A family of runs: its members and their names, what is left alone, and the spread over seeds."""

import json
from pathlib import Path
from time import time

import pytest
from typer.testing import CliRunner

from orchestrator.cli import sweep
from orchestrator.cli.app import app
from orchestrator.errors import DnctlError, UsageError
from orchestrator.run.catalogue import storage_root
from orchestrator.run.directory import RunDirectory
from orchestrator.run.family import members, parse_axis, spread
from orchestrator.run.progress import Progress, write_progress
from orchestrator.run.state import State, StateRecord, write_state

AXES = ("--over", "model.depth=40,100", "--over", "seed=0,1")
NAMES = ["fam.depth40.seed0", "fam.depth40.seed1", "fam.depth100.seed0", "fam.depth100.seed1"]


def test_members_are_all_combinations_named_by_their_values():
    family = members("fam", [parse_axis("model.depth=40,100"), parse_axis("seed=0,1")])
    assert [member.name for member in family] == NAMES
    assert family[2].overrides == ("model.depth=100", "seed=0")
    assert family[2].group == family[3].group != family[1].group


def test_values_may_be_lists():
    axis = parse_axis("train.schedule.milestones=[1/2, 3/4],[0.6]")
    assert axis.values == ("[1/2, 3/4]", "[0.6]")
    assert [member.name for member in members("f", [axis])] == ["f.milestones1-2-3-4", "f.milestones0.6"]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (["seed"], "found no key and values"),
        (["seed=0,,1"], "found no key and values"),
        (["seed=0,0"], "a value is given twice"),
        (["seed=0", "seed=1"], "more than once"),
        (["seed=" + ",".join(map(str, range(300)))], "that would be 300 runs; 200 at most"),
        (["name='a','a '"], "would have the same name"),
    ],
)
def test_what_makes_no_family_is_refused(axes, said):
    with pytest.raises(UsageError) as caught:
        members("fam", [parse_axis(axis) for axis in axes])
    assert said in str(caught.value)


def test_the_spread_is_the_sample_s_standard_deviation():
    found = spread([4.0, 6.0, 8.0])
    assert found is not None
    assert (found.mean, found.deviation, found.count) == (6.0, 2.0, 3)
    assert spread([]) is None
    one = spread([5.0])
    assert one is not None
    assert one.deviation is None


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were submitted; each is then there, PENDING."""
    names: list[str] = []

    def submit(run: RunDirectory, recipe, cluster) -> bool:
        if run.exists() and run.read_state().state is State.SUCCEEDED:
            return False
        names.append(run.name)
        if not run.exists():
            run.create(now=time())
        return True

    monkeypatch.setattr(sweep, "submit_member", submit)
    return names


def _sweep(*arguments: str):
    settings = ("--set", "model.name=densenetbc", "--set", "model.growth_rate=12")
    result = CliRunner().invoke(app, ["sweep", "demo", "--name", "fam", *settings, *AXES, *arguments])
    if isinstance(result.exception, DnctlError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def _finish(name: str, top1: float) -> None:
    run = RunDirectory(storage_root() / name)
    attempt = run.claim_attempt("test")
    progress = Progress(step=9, num_steps=9, epoch=8, num_epochs=8, steps_per_epoch=1, world_size=1, top1=top1)
    write_progress(attempt.progress, progress)
    record = StateRecord(state=State.SUCCEEDED, reason="trained", attempt=1, created_at=0.0, updated_at=0.0)
    write_state(run.state, record)


def test_finished_runs_are_not_run_again_and_seeds_are_shown_with_their_spread(submitted: list[str], tmp_path: Path):
    _sweep("--json")
    assert submitted == NAMES
    for name, top1 in (("fam.depth40.seed0", 90.0), ("fam.depth40.seed1", 94.0), ("fam.depth100.seed0", 95.0)):
        _finish(name, top1)
    submitted.clear()
    document = json.loads(_sweep("--json"))
    assert submitted == ["fam.depth100.seed1"]
    assert [group["settings"] for group in document["groups"]] == [{"model.depth": "40"}, {"model.depth": "100"}]
    first, second = document["groups"]
    assert (first["finished"], first["mean_error"], second["finished"]) == (2, 8.0, 1)
    assert first["deviation"] == pytest.approx(2 * 2**0.5)
    shown = _sweep("--status")
    assert "model.depth=40: error 8.00 ± 2.83 % over 2 finished runs" in shown
    assert submitted == ["fam.depth100.seed1"], "--status submits nothing"


def test_a_member_that_can_not_be_is_refused_before_any_is_submitted(submitted: list[str]):
    settings = ("--set", "model.name=densenetbc", "--set", "model.growth_rate=12")
    result = CliRunner().invoke(app, ["sweep", "demo", *settings, "--over", "model.depth=40,41"])
    assert "nearest are 40 and 46" in str(result.exception)
    assert submitted == []
