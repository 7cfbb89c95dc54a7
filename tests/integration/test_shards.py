"""A data set in shards is the folder it was made of: same fingerprint and batches; what is damaged is named."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest
import webdataset

from orchestrator.data.index import build_manifest, index_dataset
from orchestrator.data.prepare.record import preparing
from orchestrator.data.sharding import write_shards
from orchestrator.engine.planning import write_recipe
from orchestrator.errors import DataError
from orchestrator.recipe.load import load_recipe
from tests.images import write_folder
from tests.shard_sets import KINDS, SHARD_BYTES, assert_same_batches, batches_of, read_all
from tests.training import make_run, train_ranks


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


@pytest.mark.slow
def test_a_run_begun_on_the_folder_ends_on_its_shards_with_the_same_bits(folder, shards, tmp_path):
    undisturbed = train_ranks(make_run(tmp_path / "a", folder.train.root, workers=1), workers=1)
    run = make_run(tmp_path / "b", folder.train.root, workers=1)
    train_ranks(run, workers=1, die="at:4")
    write_recipe(run, load_recipe(run.recipe, [f"data.root={shards}"]))
    assert train_ranks(run, workers=1).tensors_sha256() == undisturbed.tensors_sha256()
