"""Files of a run directory: whole or absent."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.errors import StorageError
from orchestrator.run import files


def test_a_reader_sees_the_old_content_or_the_new(tmp_path: Path):
    path = tmp_path / "file"
    contents = [bytes([number]) * 100_000 for number in range(30)]
    files.write_atomically(path, contents[0])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [files.write_atomically(path, content) for content in contents])
        seen = []
        while not writing.done():
            seen.append(path.read_bytes())
    assert set(seen) <= set(contents)


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    files.write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", _fail)
    with pytest.raises(StorageError, match=r"cannot write .*file: Input/output error: check that the storage"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _fail(_: int) -> None:
    raise OSError(5, os.strerror(5))


def test_an_exclusive_create_has_one_winner_whose_content_stays(tmp_path: Path):
    path = tmp_path / "file"
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda number: files.create_exclusively(path, b"%d" % number), range(64)))
    assert won.count(True) == 1
    assert path.read_bytes() == b"%d" % won.index(True)
    assert list(tmp_path.iterdir()) == [path]


def test_json_comes_back_as_it_was(tmp_path: Path):
    document = {"name": "Zürich", "value": 0.1, "nothing": None}
    files.write_json(tmp_path / "file.json", document)
    assert files.read_json(tmp_path / "file.json") == document
    assert json.loads((tmp_path / "file.json").read_text())["format_version"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"format_version": 1, "state":', "file.json is damaged: it is not JSON"),
        (b"\xff\xfe", "file.json is damaged: it is not JSON"),
        (b"", "file.json is damaged: it is not JSON"),
        (b"[1, 2]", "file.json is damaged: it is no JSON object"),
        (b'{"format_version": 2}', "file.json has format version 2, this dnctl reads 1: use the dnctl that wrote it"),
    ],
    ids=["cut short", "not text", "empty", "no object", "newer"],
)
def test_json_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(StorageError, match=message):
        files.read_json(tmp_path / "file.json")


def test_json_that_is_not_there_is_told_from_json_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "file.json")
    (tmp_path / "directory.json").mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*directory.json: Is a directory"):
        files.read_json(tmp_path / "directory.json")
