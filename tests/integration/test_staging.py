"""Copies of far shards on a node's disk: within their bound, whole, and made once."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from orchestrator.data.batch import SampleRequest
from orchestrator.data.index import build_manifest
from orchestrator.data.loader import open_loader
from orchestrator.data.source import open_source
from orchestrator.data.staging import ShardCache, Stager
from orchestrator.data.storage import open_storage
from orchestrator.data.transforms import TrainTransform
from tests.s3_server import (
    answers_after,
)
from tests.shard_sets import IMPATIENT, KINDS, SHARD_BYTES, read_all


def staged(root, tmp_path, max_bytes):
    """A source over a cache in which all that fits has been copied."""
    manifest = build_manifest(root, "train", cache_dir=tmp_path / "indexes")
    source = open_source(manifest, cache=ShardCache(folder=tmp_path / "cache", max_bytes=max_bytes), retries=IMPATIENT)
    source._stager.join()
    return manifest, source


def copies(tmp_path):
    return sorted((tmp_path / "cache").glob("*.tar"))


def test_shards_on_this_disk_are_not_fetched_again(server, shards, tmp_path):
    manifest, source = staged("s3://images/set", tmp_path, max_bytes=10**9)
    assert len(copies(tmp_path)) == len(manifest.shards.names)
    server.requests.clear()
    assert [source.read(index) for index in range(manifest.num_samples)] == read_all(shards)
    assert server.requests == []
    source.close()


def test_copies_keep_within_their_bound_and_the_rest_is_read_where_it_lies(server, shards, tmp_path):
    manifest, source = staged("s3://images/set", tmp_path, max_bytes=2 * SHARD_BYTES)
    assert 1 <= len(copies(tmp_path)) < len(manifest.shards.names)
    assert sum(path.stat().st_size for path in copies(tmp_path)) <= 2 * SHARD_BYTES
    assert [source.read(index) for index in range(manifest.num_samples)] == read_all(shards)
    source.close()


def test_copies_that_nobody_uses_make_room(server, tmp_path):
    unused, recent = tmp_path / "cache/unused.tar", tmp_path / "cache/recent.tar"
    unused.parent.mkdir()
    for path in (unused, recent):
        path.write_bytes(bytes(SHARD_BYTES))
    os.utime(unused, (0, 0))
    _, source = staged("s3://images/set", tmp_path, max_bytes=3 * SHARD_BYTES)
    assert not unused.exists()
    assert recent.exists()
    assert len(copies(tmp_path)) >= 2
    source.close()


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(bytes(path.stat().st_size))])
def test_a_copy_that_is_gone_or_damaged_is_read_from_the_origin(shards, tmp_path, damage):
    manifest, source = staged(shards, tmp_path, max_bytes=10**9)
    for path in copies(tmp_path):
        damage(path)
    assert [source.read(index) for index in range(manifest.num_samples)] == read_all(shards)
    assert copies(tmp_path) == []
    source.close()


def test_a_shard_that_is_not_the_indexs_is_never_kept(copy, tmp_path):
    path = copy / "train-000000.tar"
    path.write_bytes(bytes(path.stat().st_size))
    _, source = staged(copy, tmp_path, max_bytes=10**9)
    assert not (tmp_path / "cache" / f"{hashlib.sha256(path.read_bytes()).hexdigest()}.tar").exists()
    source.close()


def test_one_process_copies_for_all(shards, tmp_path):
    manifest = build_manifest(shards, "train")
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=10**9)
    stagers = [Stager(manifest.shards, open_storage(shards), cache) for _ in range(3)]
    for stager in stagers:
        stager.join()
    assert all(stager.name(shard) for stager in stagers for shard in range(len(manifest.shards.names)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loader_that_is_closed_early_leaves_nothing_half_copied(server, tmp_path, kind):
    manifest = build_manifest("s3://images/set", "train", cache_dir=tmp_path)
    server.faults += [answers_after(0.05)] * 8
    cache = ShardCache(folder=tmp_path / "cache", max_bytes=10**9)
    with open_loader(
        kind,
        manifest,
        TrainTransform(image_size=24, crop="torch", interpolation="bilinear"),
        seed=0,
        requests=iter([SampleRequest(epoch=0, indices=np.arange(8))]),
        max_batch_size=8,
        device="cpu",
        num_threads=2,
        cache=cache,
    ) as loader:
        next(loader)
    assert not list((tmp_path / "cache").glob("*.part"))
