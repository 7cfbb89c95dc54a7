"""Finding runs by name, and naming new ones."""

import os
from datetime import datetime
from pathlib import Path

import pytest

from orchestrator.errors import NotFoundError, UsageError
from orchestrator.run.catalogue import find_run, list_runs, new_run, storage_root
from orchestrator.run.directory import RunDirectory

NOW = datetime(2026, 3, 4, 5, 6, 7)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs, launched in this order: demo-b, demo-a, paper."""
    root = tmp_path / "runs"
    for age, name in enumerate(("paper", "demo-a", "demo-b")):
        run = RunDirectory(root / name)
        run.create(now=0.0)
        run.recipe.write_text("")
        os.utime(run.recipe, (1000 - age, 1000 - age))
    return root


def test_runs_are_listed_in_the_order_of_their_launch(root: Path):
    (root / "no-run").mkdir()
    (root / "file").write_text("")
    assert [run.name for run in list_runs(root)] == ["demo-b", "demo-a", "paper"]


@pytest.mark.parametrize(
    ("name", "found"), [("demo-a", "demo-a"), ("pa", "paper"), ("demo-b", "demo-b"), ("last", "paper")]
)
def test_a_run_is_found_by_name_by_unique_prefix_or_as_the_last(root: Path, name: str, found: str):
    assert find_run(root, name).path == root / found


def test_a_name_is_found_though_it_begins_another(root: Path):
    RunDirectory(root / "demo-a-2").create(now=0.0)
    assert find_run(root, "demo-a").name == "demo-a"


def test_a_prefix_of_several_is_refused_with_their_names(root: Path):
    with pytest.raises(UsageError, match="'demo' could be any of 2 runs: demo-b, demo-a; give more of the name"):
        find_run(root, "demo")


@pytest.mark.parametrize("name", ["nothing", "../paper", "paper/", "/etc", "*"])
def test_a_run_that_is_not_there_is_not_found(root: Path, name: str):
    with pytest.raises(NotFoundError, match=r"there is no run .*; `dnctl list` shows the runs there are") as caught:
        find_run(root, name)
    assert caught.value.exit_code == 3


def test_an_empty_name_is_nobodys(root: Path):
    with pytest.raises(UsageError, match="an empty name"):
        find_run(root, "")


@pytest.mark.parametrize("name", ["last", "demo"])
def test_where_there_are_no_runs_it_is_said_how_to_start_one(tmp_path: Path, name: str):
    assert list_runs(tmp_path / "nowhere") == []
    with pytest.raises(NotFoundError, match=r"there are no runs in .*nowhere; `dnctl launch RECIPE` starts one"):
        find_run(tmp_path / "nowhere", name)


def test_a_new_run_is_called_after_its_recipe_and_the_time(root: Path):
    names = []
    for _ in range(3):
        run = new_run(root, name=None, recipe_name="demo", now=NOW)
        run.create(now=0.0)
        names.append(run.name)
    assert names == ["demo-20260304-050607", "demo-20260304-050607-2", "demo-20260304-050607-3"]


def test_a_name_that_is_given_is_taken_though_it_exists(root: Path):
    assert new_run(root, name="paper", recipe_name="demo", now=NOW).exists()


@pytest.mark.parametrize("name", ["last", "", ".hidden", "-x", "a/b", "..", "a b", "ü", "x" * 101, "a\n"])
def test_a_name_that_would_be_trouble_is_refused(root: Path, name: str):
    with pytest.raises(UsageError, match="can't name a run: take letters, digits"):
        new_run(root, name=name, recipe_name="demo", now=NOW)


def test_storage_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert storage_root() == tmp_path / "runs"
    monkeypatch.delenv("DNCTL_STORAGE")
    assert storage_root() == Path.cwd() / "runs"
    monkeypatch.setenv("DNCTL_STORAGE", "s3://bucket/runs")
    with pytest.raises(UsageError, match="DNCTL_STORAGE=s3://bucket/runs: runs live on a filesystem"):
        storage_root()
