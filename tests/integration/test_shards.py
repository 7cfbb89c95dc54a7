"""A data set in shards is the folder it was made of: same fingerprint and batches, on a disk and in an object store."""

import hashlib
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from orchestrator.data.batch import SampleRequest
from orchestrator.data.index import build_manifest, index_dataset
from orchestrator.data.loader import available_loader, open_loader
from orchestrator.data.prepare.record import preparing
from orchestrator.data.sharding import write_shards
from orchestrator.data.source import open_source
from orchestrator.data.staging import ShardCache, Stager
from orchestrator.data.storage import Retries, open_storage
from orchestrator.data.transforms import TrainTransform
from orchestrator.engine.planning import write_recipe
from orchestrator.errors import DataError, UsageError
from orchestrator.recipe.load import load_recipe
from tests.gcs_server import HANGS_UP, gcs_server
from tests.images import write_folder
from tests.s3_server import (
    S3Server,
    answers_after,
    client_environment,
    fails_with,
    s3_server,
    stalls_in_the_middle,
    stops_in_the_middle,
)
from tests.training import make_run, train_ranks

KINDS = [
    pytest.param("dali", marks=pytest.mark.skipif(available_loader() != "dali", reason="needs NVIDIA DALI")),
    "pytorch",
]
SHARD_BYTES = 30_000
IMPATIENT = Retries(max_attempts=4, first_delay_s=0.01, request_timeout_s=1)


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


def upload(server: S3Server, root: Path, prefix: str) -> None:
    for path in (*root.glob("*.tar"), *root.glob("*.arrow")):
        with server.filesystem.open_output_stream(f"{prefix}/{path.name}") as stream:
            stream.write(path.read_bytes())


def batches_of(manifest, kind="pytorch", **options):
    transform = TrainTransform(image_size=24, crop="torch", interpolation="bilinear")
    order = np.random.default_rng(0).permutation(manifest.num_samples)
    requests = [SampleRequest(epoch=1, indices=part) for part in np.array_split(order, 4)]
    with open_loader(
        kind,
        manifest,
        transform,
        seed=5,
        requests=iter(requests),
        max_batch_size=16,
        device="cpu",
        num_threads=2,
        **options,
    ) as loader:
        return list(loader)


def assert_same_batches(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.labels, other.labels)


@pytest.mark.parametrize("kind", KINDS)
def test_shards_have_the_fingerprint_and_the_batches_of_their_folder(folder, shards, kind):
    of_shards = index_dataset(shards)
    assert of_shards.fingerprint == folder.fingerprint
    assert of_shards.classes == folder.classes
    assert len(of_shards.train.shards.names) > 2
    assert_same_batches(batches_of(of_shards.train, kind), batches_of(folder.train, kind))
    assert_same_batches(batches_of(build_manifest(shards, "val"), kind), batches_of(folder.val, kind))


def test_webdataset_reads_the_shards(folder, shards):
    paths = sorted(str(path) for path in shards.glob("train-*.tar"))
    samples = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
    assert len(samples) == folder.train.num_samples
    for sample in samples:
        row = int(sample["__key__"])
        assert sample["jpg"] == Path(folder.train.path(row)).read_bytes()
        assert int(sample["cls"]) == folder.train.labels[row]
    assert [int(sample["__key__"]) for sample in samples] != list(range(len(samples)))  # classes are mixed


def test_shards_are_plain_tar_files_within_their_size(shards):
    for path in shards.glob("*.tar"):
        assert path.stat().st_size <= SHARD_BYTES
        with tarfile.open(path) as tar:
            assert all(member.isreg() for member in tar)


def test_the_same_images_give_the_same_shards(folder, shards, tmp_path):
    write_shards(folder, tmp_path / "again", shard_bytes=SHARD_BYTES)
    for path in shards.glob("*.tar"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_shards_of_shards_are_the_same_data_set(folder, shards, tmp_path):
    write_shards(index_dataset(shards), tmp_path / "larger", shard_bytes=10**6)
    assert index_dataset(tmp_path / "larger").fingerprint == folder.fingerprint
    assert len(list((tmp_path / "larger").glob("*.tar"))) == 2


def test_shards_are_not_written_twice_nor_over_others(folder, tmp_path):
    assert write_shards(folder, tmp_path / "out").num_shards_written
    assert not write_shards(folder, tmp_path / "out").num_shards_written
    other = index_dataset(write_folder(tmp_path / "other", num_train=4, num_val=4, num_classes=2))
    with pytest.raises(DataError, match="holds the shards of another data set"):
        write_shards(other, tmp_path / "out")


def test_what_an_interrupted_writing_with_smaller_shards_has_left_is_no_part_of_the_set(folder, shards, tmp_path):
    out = tmp_path / "out"
    write_shards(folder, out, shard_bytes=SHARD_BYTES)
    for index in out.glob("*.arrow"):
        index.unlink()  # as if the last shard hadn't been written
    write_shards(folder, out, shard_bytes=10**6)
    assert len(list(out.glob("*.tar"))) == 2
    assert index_dataset(out).fingerprint == folder.fingerprint


def test_a_disk_that_is_too_small_is_noticed_first(folder, tmp_path, monkeypatch):
    status = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result([*status[:3], 20, 2, *status[5:]]))
    with pytest.raises(DataError, match=r"0.2 MB are needed, 0.0 MB are free"):
        write_shards(folder, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".dnctl"]


def test_shards_are_not_written_among_other_files(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train").mkdir()
    with pytest.raises(DataError, match=r"out holds train, which is no part of a shard set. Name another folder"):
        write_shards(folder, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train"]


def test_two_writers_of_one_set_are_refused(folder, tmp_path):
    with preparing(tmp_path / "out"), pytest.raises(DataError, match=rf"is being prepared by process {os.getpid()}"):
        write_shards(folder, tmp_path / "out")
    assert write_shards(folder, tmp_path / "out").num_shards_written


@pytest.fixture
def copy(shards, tmp_path):
    return Path(shutil.copytree(shards, tmp_path / "copy"))


def read_all(root, **options):
    manifest = build_manifest(root, "train")
    source = open_source(manifest, **options)
    try:
        return [source.read(index) for index in range(manifest.num_samples)]
    finally:
        source.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_cut_short_is_named(copy, kind):
    path = copy / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(DataError, match=r"train-000001.tar has \d+ bytes and the index says \d+: it was cut short"):
        batches_of(build_manifest(copy, "train"), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_is_found_and_its_image_named(copy, kind):
    manifest = build_manifest(copy, "train")
    path = copy / manifest.shards.names[manifest.shards.shard[7]]
    contents = bytearray(path.read_bytes())
    contents[int(manifest.shards.offset[7]) + 300] ^= 1
    path.write_bytes(contents)
    with pytest.raises(DataError, match=r"\(train/class0/0021.jpg\) isn't what the index says: the shard was changed"):
        batches_of(manifest, kind)


def test_an_index_of_other_shards_is_refused(copy, tmp_path):
    other = write_folder(tmp_path / "other", num_train=46, num_val=11, num_classes=3, size=(39, 36))
    write_shards(index_dataset(other), tmp_path / "others", shard_bytes=SHARD_BYTES)
    shutil.copy(tmp_path / "others/train.index.arrow", copy / "train.index.arrow")
    with pytest.raises(DataError, match="the index belongs to other shards"):
        read_all(copy)


def test_a_missing_shard_is_named(copy):
    (copy / "train-000000.tar").unlink()
    with pytest.raises(DataError, match=r"train-000000.tar is missing; put it back"):
        read_all(copy)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-500]), Path.unlink])
def test_a_missing_or_damaged_index_is_refused(copy, damage):
    damage(copy / "train.index.arrow")
    with pytest.raises(DataError, match=r"train.index.arrow"):
        index_dataset(copy)


def test_an_index_under_the_name_of_the_other_split_is_refused(copy):
    shutil.copy(copy / "val.index.arrow", copy / "train.index.arrow")
    with pytest.raises(DataError, match=r"train.index.arrow is no index of shards of train"):
        index_dataset(copy)


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_store_gives_the_batches_of_the_folder(folder, server, tmp_path, kind):
    remote = index_dataset("s3://images/set", cache_dir=tmp_path)
    assert remote.fingerprint == folder.fingerprint
    assert_same_batches(batches_of(remote.train, kind), batches_of(folder.train, kind))


def test_the_index_is_fetched_once_and_again_when_it_was_replaced(server, copy, tmp_path):
    def fetched():
        server.requests.clear()
        index_dataset("s3://images/set", cache_dir=tmp_path / "cache")
        return [request for request in server.requests if request.startswith("GET /images/set/")]

    assert fetched()
    assert not fetched()
    other = write_folder(tmp_path / "other", num_train=9, num_val=6, num_classes=3)
    write_shards(index_dataset(other), tmp_path / "others")
    upload(server, tmp_path / "others", "images/set")
    assert fetched()


@pytest.mark.parametrize(
    "faults",
    [
        [fails_with(503, "SlowDown")] * 3,
        [fails_with(500, "InternalError"), stops_in_the_middle],
        pytest.param([stalls_in_the_middle], marks=pytest.mark.slow),
        [answers_after(0.3)],
    ],
    ids=["503", "500 and a body that stops", "a silence", "slow"],
)
def test_what_passes_by_itself_is_tried_again(server, shards, tmp_path, faults):
    manifest = build_manifest("s3://images/set", "train", cache_dir=tmp_path)
    source = open_source(manifest, retries=IMPATIENT)
    local = open_source(build_manifest(shards, "train"))
    server.faults += faults
    assert source.read(3) == local.read(3)
    assert not server.faults


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            fails_with(403, "AccessDenied"),
            r"train-00000\d.tar was refused by the store \(403\): credentials are missing",
        ),
        (fails_with(403, "InvalidAccessKeyId"), r"refused by the store \(403\).*AWS_ACCESS_KEY_ID"),
        (fails_with(404, "NoSuchKey"), r"train-00000\d.tar doesn't exist in the store \(404\)"),
    ],
)
def test_what_does_not_pass_is_said_at_once(server, tmp_path, fault, said):
    source = open_source(build_manifest("s3://images/set", "train", cache_dir=tmp_path), retries=IMPATIENT)
    server.faults += [fault]
    with pytest.raises(DataError, match=said):
        source.read(3)
    assert source.read(3)


def test_a_store_that_stays_busy_is_given_up_by_name(server, tmp_path):
    source = open_source(build_manifest("s3://images/set", "train", cache_dir=tmp_path), retries=IMPATIENT)
    server.faults += [fails_with(503, "SlowDown")] * 4
    with pytest.raises(DataError, match=r"s3://images/set/train-00000\d.tar couldn't be read in 4 attempts"):
        source.read(3)


def test_no_data_set_at_an_address_is_said(server, tmp_path):
    with pytest.raises(DataError, match=r"s3://images/nothing/train.index.arrow doesn't exist in the store \(404\)"):
        index_dataset("s3://images/nothing", cache_dir=tmp_path)
    with pytest.raises(UsageError, match=r"data can't be read from https://"):
        index_dataset("https://images/nothing", cache_dir=tmp_path)


@pytest.fixture(scope="module")
def _google(shards):
    with gcs_server("images") as server:
        server.upload(shards, "set")
        yield server


@pytest.fixture
def google(_google, monkeypatch):
    """A Google Cloud Storage server with the shards under images/set."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", _google.endpoint)
    return _google


@pytest.mark.parametrize("kind", KINDS)
def test_google_cloud_storage_gives_the_batches_of_the_folder(folder, google, tmp_path, kind):
    remote = index_dataset("gs://images/set", cache_dir=tmp_path)
    assert remote.fingerprint == folder.fingerprint
    assert_same_batches(batches_of(remote.train, kind), batches_of(folder.train, kind))


@pytest.mark.parametrize("status", [503, 429, HANGS_UP])
def test_google_cloud_storage_is_asked_again(google, shards, tmp_path, status):
    source = open_source(build_manifest("gs://images/set", "train", cache_dir=tmp_path), retries=IMPATIENT)
    google.fail_next(status)
    assert source.read(3) == open_source(build_manifest(shards, "train")).read(3)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, r"gs://images/set/train-00000\d.tar was refused by the store \(403\).*GOOGLE_APPLICATION_CREDENTIALS"),
        (404, r"gs://images/set/train-00000\d.tar doesn't exist in the store \(404\)"),
    ],
)
def test_what_google_cloud_storage_refuses_is_said_at_once(google, tmp_path, status, said):
    source = open_source(build_manifest("gs://images/set", "train", cache_dir=tmp_path), retries=IMPATIENT)
    google.fail_next(status)
    with pytest.raises(DataError, match=said):
        source.read(3)
    assert source.read(3)


def test_no_data_set_in_google_cloud_storage_is_said(google, tmp_path):
    with pytest.raises(DataError, match=r"gs://images/nothing/train.index.arrow doesn't exist in the store \(404\)"):
        index_dataset("gs://images/nothing", cache_dir=tmp_path)


def test_waiting_between_attempts_grows():
    delays = [Retries(first_delay_s=1.0).delay_s(attempt) for attempt in (1, 2, 3, 4)]
    for delay, expected in zip(delays, (1, 2, 4, 8), strict=True):
        assert expected * 0.5 <= delay < expected * 1.5


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


@pytest.mark.slow
def test_a_run_begun_on_the_folder_ends_on_its_shards_with_the_same_bits(folder, shards, tmp_path):
    undisturbed = train_ranks(make_run(tmp_path / "a", folder.train.root, workers=1), workers=1)
    run = make_run(tmp_path / "b", folder.train.root, workers=1)
    train_ranks(run, workers=1, die="at:4")
    write_recipe(run, load_recipe(run.recipe, [f"data.root={shards}"]))
    assert train_ranks(run, workers=1).tensors_sha256() == undisturbed.tensors_sha256()
