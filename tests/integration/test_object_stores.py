"""Shards in an object store: the folder's batches, what passes is tried again, and what doesn't is said."""

import pytest

from orchestrator.data.index import build_manifest, index_dataset
from orchestrator.data.sharding import write_shards
from orchestrator.data.source import open_source
from orchestrator.data.storage import Retries
from orchestrator.errors import DataError, UsageError
from tests.gcs_server import HANGS_UP, gcs_server
from tests.images import write_folder
from tests.s3_server import (
    answers_after,
    fails_with,
    stalls_in_the_middle,
    stops_in_the_middle,
)
from tests.shard_sets import IMPATIENT, KINDS, assert_same_batches, batches_of, upload


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
