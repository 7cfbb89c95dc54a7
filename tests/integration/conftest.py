"""A small data set as a folder and as shards, on this disk and in an object store."""

import shutil
from pathlib import Path

import pytest

from orchestrator.data.index import index_dataset
from orchestrator.data.sharding import write_shards
from tests.images import write_folder
from tests.s3_server import (
    client_environment,
    s3_server,
)
from tests.shard_sets import SHARD_BYTES, upload


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    return index_dataset(write_folder(root, num_train=46, num_val=11, num_classes=3))


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    write_shards(folder, out, shard_bytes=SHARD_BYTES)
    return out


@pytest.fixture(scope="module")
def _server():
    with s3_server("images") as server:
        yield server


@pytest.fixture
def server(_server, shards, monkeypatch):
    """A store with the shards under images/set; every test begins without faults."""
    for name, value in client_environment(_server).items():
        monkeypatch.setenv(name, value)
    _server.filesystem.delete_dir_contents("images")
    upload(_server, shards, "images/set")
    _server.faults.clear()
    _server.requests.clear()
    return _server


@pytest.fixture
def copy(shards, tmp_path):
    return Path(shutil.copytree(shards, tmp_path / "copy"))
