"""Checkpoints on storage: either whole or absent."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import CheckpointError, StorageError
from orchestrator.run import checkpoints
from orchestrator.run.checkpoints import (
    COMMITTED,
    MANIFEST,
    Checkpoint,
    checkpoint_path,
    list_checkpoints,
    newest_whole,
    read_checkpoint,
    read_metric,
    retain,
    write_checkpoint,
)
from orchestrator.run.directory import RunDirectory
from orchestrator.train.reporter import RunReporter
from tests.checkpoint_files import contents_of

CONTENTS = contents_of(1)
FILES = [*CONTENTS, MANIFEST, COMMITTED]


def _write(directory: Path, step: int, *, attempt: int = 1, top1: float | None = None) -> Path:
    path = checkpoint_path(directory, step=step, attempt=attempt)
    write_checkpoint(path, contents_of(step), metrics={"top1": top1}, may_commit=lambda: None)
    return path


def _names(directory: Path) -> list[str]:
    return [checkpoint.path.name for checkpoint in list_checkpoints(directory)]


def _retain(directory: Path, *, keep_last: int, keep_best: int = 0, attempt: int = 1) -> list[str]:
    deleted = retain(directory, keep_last=keep_last, keep_best=keep_best, metric="top1", attempt=attempt)
    return [checkpoint.path.name for checkpoint in deleted]


def _flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path):
    path = _write(tmp_path / "checkpoints", 12, attempt=3, top1=71.5)
    assert path.name == "step-00000012.3"
    assert read_checkpoint(path) == contents_of(12)
    (checkpoint,) = list_checkpoints(tmp_path / "checkpoints")
    assert checkpoint == Checkpoint(path=path, step=12, attempt=3)
    assert read_metric(checkpoint, "top1") == 71.5
    assert read_metric(checkpoint, "top5") is None


def test_a_write_cut_short_at_any_file_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writing = checkpoints.files.write_through
    for survivors in range(len(FILES)):
        calls = []

        def die(path: Path, content: bytes, survivors: int = survivors, calls: list[Path] = calls) -> None:
            calls.append(path)
            if len(calls) > survivors:
                path.write_bytes(content[: len(content) // 2])
                raise SystemExit  # a process that is killed writes no more and cleans nothing up
            writing(path, content)

        directory = tmp_path / str(survivors)
        with monkeypatch.context() as killed:
            killed.setattr(checkpoints.files, "write_through", die)
            killed.setattr(shutil, "rmtree", lambda *_, **__: None)
            with pytest.raises(SystemExit):
                _write(directory, 1)
        assert checkpoint_path(directory, step=1, attempt=1).is_dir()
        assert _names(directory) == []


def test_a_failed_write_removes_what_it_wrote_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _write(tmp_path, 1)
    monkeypatch.setattr(checkpoints.files, "sync_directory", _fail)
    with pytest.raises(StorageError, match=r"cannot write the checkpoint .*step-00000002.1"):
        _write(tmp_path, 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001.1"]
    assert read_checkpoint(tmp_path / "step-00000001.1") == CONTENTS


def _fail(_: Path) -> None:
    raise OSError(5, os.strerror(5))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("position", [0, -1, None], ids=["first", "last", "middle"])
def test_one_flipped_bit_in_any_file_is_found(tmp_path: Path, name: str, position: int | None):
    path = _write(tmp_path, 1)
    size = (path / name).stat().st_size
    _flip(path / name, size // 2 if position is None else position)
    with pytest.raises(CheckpointError, match=rf"step-00000001.1 is damaged: .*{name}.*; restore it from a copy"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: b""], ids=["cut short", "emptied"])
def test_a_file_cut_short_is_found(tmp_path: Path, name: str, change: Callable[[bytes], bytes]):
    path = _write(tmp_path, 1)
    (path / name).write_bytes(change((path / name).read_bytes()))
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(tmp_path: Path, name: str):
    path = _write(tmp_path, 1)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        read_checkpoint(path)


def _commit(path: Path, manifest: object) -> None:
    """A manifest that somebody else wrote, with the marker to match."""
    content = json.dumps(manifest).encode()
    (path / MANIFEST).write_bytes(content)
    (path / COMMITTED).write_bytes(hashlib.sha256(content).hexdigest().encode())


@pytest.mark.parametrize("name", ["../secret", "..", ".", "", "/etc/hostname", "a/b", "a\0b", ".hidden"])
def test_a_manifest_that_names_a_path_outside_is_not_trusted(tmp_path: Path, name: str):
    path = _write(tmp_path / "checkpoints", 1)
    secret = tmp_path / "checkpoints" / "secret"
    secret.write_bytes(b"secret")
    entry = {"bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    _commit(path, {"format_version": 1, "files": {name: entry}, "metrics": {}})
    with pytest.raises(CheckpointError, match="which is no file of a checkpoint, and isn't trusted"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"format_version": 2}, "format version 2, this dnctl reads 1: use the dnctl that wrote it"),
        ({"format_version": 1, "files": []}, "isn't one that dnctl writes"),
        ({"format_version": 1, "files": {"state.json": {}}, "metrics": {}}, "isn't one that dnctl writes"),
        ([], "isn't one that dnctl writes"),
    ],
    ids=["newer", "no files", "no sizes", "no object"],
)
def test_a_manifest_of_another_make_is_refused(tmp_path: Path, manifest: object, message: str):
    path = _write(tmp_path, 1)
    _commit(path, manifest)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_the_newest_that_verifies_is_taken_and_the_others_are_told(tmp_path: Path):
    for step in (10, 20, 30):
        _write(tmp_path, step)
    _flip(tmp_path / "step-00000030.1" / "state.json", 0)
    (tmp_path / "step-00000020.1" / "model.safetensors").unlink()
    told: list[tuple[int, str]] = []
    found = newest_whole(tmp_path, passed_over=lambda checkpoint, error: told.append((checkpoint.step, str(error))))
    assert found is not None
    assert (found[0].step, found[1]) == (10, contents_of(10))
    assert [step for step, _ in told] == [30, 20]
    assert "state.json" in told[0][1]
    assert "model.safetensors is missing" in told[1][1]


def test_of_one_step_the_newest_attempts_checkpoint_is_taken(tmp_path: Path):
    for attempt in (9, 10, 2):
        _write(tmp_path, 5, attempt=attempt)
    found = newest_whole(tmp_path, passed_over=lambda *_: None)
    assert found is not None
    assert found[0].attempt == 10


def test_where_none_verifies_there_is_none(tmp_path: Path):
    assert newest_whole(tmp_path / "nowhere", passed_over=lambda *_: None) is None
    (_write(tmp_path, 1) / COMMITTED).unlink()
    told: list[Checkpoint] = []
    assert newest_whole(tmp_path, passed_over=lambda checkpoint, _: told.append(checkpoint)) is None
    assert told == [], "what was never committed is no checkpoint"


def test_retention_keeps_the_last_and_the_best(tmp_path: Path):
    for step, top1 in enumerate([50.0, 90.0, None, 70.0, 90.0, 60.0, 65.0], start=1):
        _write(tmp_path, step, top1=top1)
    assert _retain(tmp_path, keep_last=2, keep_best=1) == [f"step-0000000{step}.1" for step in (1, 2, 3, 4)]
    assert _names(tmp_path) == [f"step-0000000{step}.1" for step in (5, 6, 7)]


@pytest.mark.parametrize("keep_last", [0, 1])
def test_the_newest_is_never_deleted(tmp_path: Path, keep_last: int):
    for step, top1 in ((1, 90.0), (2, 50.0), (3, 10.0)):
        _write(tmp_path, step, top1=top1)
    _retain(tmp_path, keep_last=keep_last)
    assert _names(tmp_path) == ["step-00000003.1"]


def test_a_damaged_later_step_of_an_older_attempt_does_not_cost_the_newest_whole_one(tmp_path: Path):
    _write(tmp_path, 100)
    _flip(_write(tmp_path, 200) / "state.json", 0)
    _write(tmp_path, 150, attempt=2)
    assert _retain(tmp_path, keep_last=1, attempt=2) == ["step-00000100.1", "step-00000200.1"]
    found = newest_whole(tmp_path, passed_over=lambda *_: None)
    assert found is not None
    assert (found[0].step, found[0].attempt) == (150, 2)


def test_leftovers_go_but_for_those_of_newer_attempts_and_of_others(tmp_path: Path):
    for attempt in (1, 2, 3):
        (_write(tmp_path, 1, attempt=attempt) / COMMITTED).unlink()
    (tmp_path / "mine").mkdir()
    _write(tmp_path, 2, attempt=2)
    assert _retain(tmp_path, keep_last=1, attempt=2) == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["mine", "step-00000001.3", "step-00000002.2"]


def test_a_deletion_cut_short_leaves_no_checkpoint_and_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for step in (1, 2):
        _write(tmp_path, step)
    with monkeypatch.context() as failing:
        failing.setattr(shutil, "rmtree", _fail)
        assert _retain(tmp_path, keep_last=1) == []
    assert (tmp_path / "step-00000001.1").is_dir()
    assert _names(tmp_path) == ["step-00000002.1"]
    _retain(tmp_path, keep_last=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000002.1"]


def test_an_attempt_that_was_taken_over_commits_nothing(tmp_path: Path):
    run = RunDirectory(tmp_path / "run")
    run.create(now=0.0)
    old = RunReporter(run, attempt=run.claim_attempt("first").number, keep_last=3, keep_best=0)
    old.save(step=1, contents=CONTENTS, metrics={})
    run.claim_attempt("second")
    with pytest.raises(
        StorageError, match=r"attempt 1 of run run .* was taken over by attempt 2; it writes nothing more"
    ):
        old.save(step=2, contents=contents_of(2), metrics={})
    old.close()
    assert _names(run.checkpoints) == ["step-00000001.1"]
    assert [entry.name for entry in run.checkpoints.iterdir()] == ["step-00000001.1"]
