"""Checkpoints that somebody else made: hashes that fit, and contents that lie. None is loaded, none leads elsewhere."""

import hashlib
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import CheckpointError
from orchestrator.run.checkpoints import (
    COMMITTED,
    LARGEST_FILE_BYTES,
    MANIFEST,
    Checkpoint,
    checkpoint_path,
    newest_whole,
    read_checkpoint,
    retain,
    write_checkpoint,
)
from orchestrator.run.contents import MODEL, OPTIMIZER, STATE
from tests.checkpoint_files import contents_of


def write(directory: Path, step: int, **contents: bytes) -> Path:
    """A checkpoint whose hashes fit, some of its files replaced."""
    path = checkpoint_path(directory, step=step, attempt=1)
    named = {name.replace("_", "."): content for name, content in contents.items()}
    write_checkpoint(path, contents_of(step) | named, metrics={"top1": None}, may_commit=lambda: None)
    return path


def commit(path: Path, manifest: bytes) -> None:
    (path / MANIFEST).write_bytes(manifest)
    (path / COMMITTED).write_bytes(hashlib.sha256(manifest).hexdigest().encode())


def tensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
LIES = {
    "a pickle in disguise": pickle.dumps(Evil()),
    "empty": b"",
    "a header longer than the file": tensors({"a": F32}, b"12345678", length=2**62),
    "a header that is no object": tensors([]),
    "a header nested deeply": tensors(b"[" * 100_000),
    "a tensor beyond the end": tensors({"a": F32 | {"shape": [2**40], "data_offsets": [0, 2**42]}}, b"12345678"),
    "a tensor before the beginning": tensors({"a": F32 | {"data_offsets": [-8, 0]}}, b"12345678"),
    "a shape that doesn't fit": tensors({"a": F32 | {"shape": [3]}}, b"12345678"),
    "a negative shape": tensors({"a": F32 | {"shape": [-1, -2]}}, b"12345678"),
    "an unknown type": tensors({"a": F32 | {"dtype": "OBJECT"}}, b"12345678"),
    "two tensors in one place": tensors({"a": F32, "b": F32}, b"12345678"),
    "one name twice": tensors(b'{"a": %s, "a": %s}' % ((json.dumps(F32).encode(),) * 2), b"12345678"),
    "bytes that nobody describes": tensors({"a": F32}, b"12345678more"),
    "no offsets": tensors({"a": {"dtype": "F32", "shape": [2]}}, b"12345678"),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("name", [MODEL, OPTIMIZER])
def test_tensors_that_lie_are_passed_over_for_the_checkpoint_before(tmp_path: Path, lie: str, name: str):
    write(tmp_path, 1)
    write(tmp_path, 2, **{name.replace(".", "_"): LIES[lie]})
    told: list[str] = []
    found = newest_whole(tmp_path, passed_over=lambda _, error: told.append(str(error)))
    assert found is not None
    assert (found[0].step, len(told)) == (1, 1)
    assert f"step-00000002.1 is not one that dnctl wrote: {name}: " in told[0]


@pytest.mark.parametrize(
    "state",
    [b"[]", b"", b"[" * 100_000, b'{"step": 1, "step": 2}', b'{"step": 99}', b'{"step": 2, "x": NaN}', pickle.dumps(1)],
    ids=["no object", "empty", "deep", "twice", "another step", "not a number", "pickle"],
)
def test_numbers_that_lie_are_passed_over_likewise(tmp_path: Path, state: bytes):
    write(tmp_path, 1)
    write(tmp_path, 2, state_json=state)
    found = newest_whole(tmp_path, passed_over=lambda *_: None)
    assert found is not None
    assert found[0].step == 1


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, STATE])
def test_a_checkpoint_without_one_of_its_files_is_passed_over(tmp_path: Path, name: str):
    contents = contents_of(2)
    del contents[name]
    write_checkpoint(tmp_path / "step-00000002.1", contents, metrics={}, may_commit=lambda: None)
    told: list[str] = []
    assert newest_whole(tmp_path, passed_over=lambda _, error: told.append(str(error))) is None
    assert f"has no {name}" in told[0]


def test_a_checkpoint_that_calls_itself_newer_than_it_is_is_passed_over(tmp_path: Path):
    write(tmp_path, 1)
    write(tmp_path, 2).rename(tmp_path / "step-00009999.1")
    told: list[str] = []
    found = newest_whole(tmp_path, passed_over=lambda _, error: told.append(str(error)))
    assert found is not None
    assert found[0].step == 1
    assert "it is of step 2, the checkpoint's name says 9999" in told[0]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (2**60, "what can't be"),
        (-1, "what can't be"),
        (10**30, "isn't one that dnctl writes"),
        (50 * 2**30, "what can't"),
    ],
)
def test_a_size_that_cannot_be_is_refused_before_anything_is_read(tmp_path: Path, size: int, message: str):
    path = write(tmp_path, 1)
    with (path / MODEL).open("r+b") as file:  # a sparse file that is as large as the manifest says
        file.truncate(min(max(size, 0), LARGEST_FILE_BYTES * 4))
    document = {"format_version": 1, "files": {MODEL: {"bytes": size, "sha256": "0" * 64}}, "metrics": {}}
    commit(path, json.dumps(document).encode())
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_a_size_other_than_the_files_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write(tmp_path, 1)
    with (path / MODEL).open("r+b") as file:
        file.truncate(2**40)
    monkeypatch.setattr(hashlib, "new", lambda *_: pytest.fail("read"))
    with pytest.raises(CheckpointError, match=f"{MODEL} has {2**40} bytes instead of"):
        read_checkpoint(path)


@pytest.mark.parametrize("manifest", [b"[" * 100_000, b'{"files": {}, "files": {}}', b" " * 2_000_000, b"\xff"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, manifest: bytes):
    path = write(tmp_path, 1)
    commit(path, manifest)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", [MODEL, MANIFEST, COMMITTED])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, name: str):
    path = write(tmp_path / "checkpoints", 1)
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=f"{name} can't be read: it is a symbolic link"):
        read_checkpoint(path)


@pytest.mark.timeout(20)
def test_a_pipe_does_not_hang_the_reader(tmp_path: Path):
    path = write(tmp_path, 1)
    (path / MODEL).unlink()
    os.mkfifo(path / MODEL)
    with pytest.raises(CheckpointError, match=f"{MODEL} can't be read: no plain file"):
        read_checkpoint(path)


def test_a_link_to_another_runs_checkpoint_is_neither_read_nor_its_checkpoint_deleted(tmp_path: Path):
    theirs = write(tmp_path / "theirs", 1)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "step-00000001.1").symlink_to(theirs)
    write(tmp_path / "ours", 2)
    told: list[Checkpoint] = []
    (tmp_path / "ours" / "step-00000003.1").symlink_to(theirs)
    found = newest_whole(tmp_path / "ours", passed_over=lambda checkpoint, _: told.append(checkpoint))
    assert found is not None
    assert (found[0].step, [checkpoint.step for checkpoint in told]) == (2, [3])
    retain(tmp_path / "ours", keep_last=1, keep_best=0, metric="top1", attempt=1)
    assert read_checkpoint(theirs) == contents_of(1)
