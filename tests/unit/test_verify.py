"""Verifying a data set: what is counted, what is a fault, and what is only told."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.data import expectation
from orchestrator.data.expectation import Expectation, expectation_of, imagenet_classes
from orchestrator.data.index import index_dataset
from orchestrator.data.prepare.datasets import Request, prepare
from orchestrator.data.sharding import write_shards
from orchestrator.data.verify import verify_dataset
from orchestrator.errors import DataError
from tests import archives as made
from tests.images import write_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", num_train=12, num_val=6, num_classes=3)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    archives = made.write_imagenet(tmp_path / "archives")
    request = Request(dataset="imagenet", archives=archives, sums=archives / "MD5SUMS")
    prepare(request, tmp_path / "imagenet", progress=lambda *told: None)
    return tmp_path / "imagenet"


def faults(root: Path, **options) -> list[str]:
    return [str(fault) for fault in verify_dataset(root, **options).faults]


def test_a_whole_data_set_has_the_fingerprint_that_a_run_records(root):
    report = verify_dataset(root)
    assert report.faults == []
    assert {name: (split.num_images, split.num_classes) for name, split in report.splits.items()} == {
        "train": (12, 3),
        "val": (6, 3),
    }
    assert report.splits["train"].num_bytes == sum(path.stat().st_size for path in (root / "train").rglob("*.jpg"))
    looked_at = []
    dataset = index_dataset(root, full_decode=True, progress=lambda done, total: looked_at.append(done))
    assert report.fingerprint == dataset.fingerprint
    assert looked_at == []  # verifying has left the manifests
    assert report.expectation is None


def test_every_image_is_decoded_each_time(root):
    assert verify_dataset(root).faults == []
    path = root / "train/class0/0000.jpg"
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + b"\xff\x39" + data[middle + 2 :])  # as long as before, and with whole ends
    report = verify_dataset(root)
    assert [fault.path for fault in report.faults] == ["train/class0/0000.jpg"]
    assert report.fingerprint is None


def test_a_changed_pixel_changes_the_contents_and_not_the_fingerprint(tmp_path):
    for name, value in (("a", 10), ("b", 200)):
        for split in ("train", "val"):
            folder = tmp_path / name / split / "c"
            folder.mkdir(parents=True)
            Image.fromarray(np.full((9, 9, 3), value, dtype=np.uint8)).save(folder / "x.bmp")
    a, b = (verify_dataset(tmp_path / name) for name in "ab")
    assert a.fingerprint == b.fingerprint
    assert a.contents != b.contents
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    assert verify_dataset(tmp_path / "c").contents == a.contents


def test_what_was_prepared_is_held_against_its_archives(prepared):
    assert faults(prepared) == []
    (prepared / "train/n01440764/n01440764_9.JPEG").unlink()
    (prepared / "val/n01443537/another.JPEG").write_bytes(made.jpeg(5))
    shutil.rmtree(prepared / "train/n02119789")
    for split in ("train", "val"):
        shutil.copytree(prepared / split / "n01443537", prepared / split / "extra")
    assert faults(prepared) == [
        "train/extra is a class that shouldn't be there",
        "train/n01440764 has 4 images and should have 5",
        "train/n02119789 is missing and should have 4 images",
        "val/extra is a class that shouldn't be there",
        "val/n01443537 has 3 images and should have 2",
    ]


def test_a_folder_prepared_elsewhere_is_held_against_the_devkit(prepared, tmp_path):
    shutil.rmtree(prepared / ".dnctl")
    devkit = tmp_path / "archives" / "ILSVRC2012_devkit_t12.tar.gz"
    assert verify_dataset(prepared).expectation is None
    assert faults(prepared, devkit=devkit) == []
    (prepared / "train/n01440764/n01440764_9.JPEG").unlink()
    assert faults(prepared) == []
    assert faults(prepared, devkit=devkit) == ["train/n01440764 has 4 images and should have 5"]
    with pytest.raises(DataError, match="no_devkit can't be read"):
        verify_dataset(prepared, devkit=tmp_path / "no_devkit")


def test_missing_splits_and_classes_are_faults(root):
    shutil.rmtree(root / "val/class1")
    assert faults(root) == ["val/class1 is missing; train has this class"]
    shutil.rmtree(root / "val")
    assert faults(root) == ["val is missing; images lie in ROOT/train/CLASS/ and ROOT/val/CLASS/"]


def test_duplicates_are_told_and_are_no_faults(root):
    copy = (root / "train/class0/0000.jpg").read_bytes()
    (root / "train/class0/again.jpg").write_bytes(copy)
    (root / "val/class2/again.jpg").write_bytes(copy)
    (root / "train/class2/twin.jpg").write_bytes((root / "train/class1/0001.jpg").read_bytes())
    report = verify_dataset(root)
    assert report.faults == []
    assert sorted(report.duplicates) == [
        ("train/class0/0000.jpg", "train/class0/again.jpg", "val/class2/again.jpg"),
        ("train/class1/0001.jpg", "train/class2/twin.jpg"),
    ]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["0", "1", "2"], "of the names' code points."),
        (["1", "10", "2"], "of the names, and not of the numbers that they are: 10 comes where 2 would be."),
        (["cat", "dog", "ox"], "of the names' code points."),
    ],
)
def test_orders_that_surprise_are_told(root, names, said):
    for split in ("train", "val"):
        for number, name in enumerate(names):
            (root / split / f"class{number}").rename(root / split / name)
    assert verify_dataset(root).order == said


def test_imagenets_classes_are_those_that_timm_has_in_their_order():
    from timm.data import ImageNetInfo

    assert list(imagenet_classes()) == ImageNetInfo().label_names()


def published(**changes: int) -> dict[str, dict[str, int]]:
    """ImageNet's counts, with some that differ: train_n01440764=5."""
    classes = imagenet_classes()
    counts = {"train": dict.fromkeys(classes, 1281), "val": dict.fromkeys(classes, 50)}
    counts["train"][classes[-1]] += 1_281_167 - 1_281_000
    for change, count in changes.items():
        split, _, name = change.partition("_")
        counts[split][name] = count
    return counts


def imagenet_faults(counts: dict[str, dict[str, int]]) -> list[str]:
    expected = expectation_of(None, counts, devkit=None)
    assert isinstance(expected, Expectation)
    assert expected.source == "what is published of ImageNet (ILSVRC 2012)"
    return [str(fault) for fault in expected.faults(counts)]


def test_imagenet_is_held_against_what_is_published_of_it(monkeypatch):
    monkeypatch.setattr(expectation, "_IMAGENET_TRAIN_BY_CLASS", range(732, 1500))  # published() isn't that even
    assert imagenet_faults(published()) == []
    assert imagenet_faults(published(train_n01440764=1280)) == ["train has 1,281,166 images and should have 1,281,167"]
    assert imagenet_faults(published(train_n01440764=731, val_n01443537=49)) == [
        "train/n01440764 has 731 images and should have 732 to 1,499",
        "val/n01443537 has 49 images and should have 50",
    ]
    counts = published()
    del counts["train"]["n01440764"], counts["val"]["n01440764"]
    assert imagenet_faults(counts) == [
        "train/n01440764 is missing and should have 732 to 1,499 images",
        "val/n01440764 is missing and should have 50 images",
    ]


def test_a_hundred_classes_of_imagenet_are_a_data_set_of_their_own():
    counts = {split: dict.fromkeys(imagenet_classes()[:100], 1) for split in ("train", "val")}
    assert expectation_of(None, counts, devkit=None) is None


def test_roots_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere can't be listed: No such file"):
        verify_dataset(tmp_path / "nowhere")


def test_damaged_records_are_refused_by_name(prepared):
    (prepared / ".dnctl/prepared.json").write_text("{")
    with pytest.raises(DataError, match=r"prepared\.json can't be read"):
        verify_dataset(prepared)


def test_progress_counts_all_splits(root):
    told = []
    verify_dataset(root, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (18, 18)


def test_shards_are_verified_as_their_folder_is(root, tmp_path):
    dataset = index_dataset(root)
    write_shards(dataset, tmp_path / "shards", shard_bytes=10**6, progress=lambda *told: None)
    of_folder, of_shards = verify_dataset(root), verify_dataset(tmp_path / "shards")
    assert of_shards == of_folder
    (shard,) = (tmp_path / "shards").glob("val*.tar")
    data = bytearray(shard.read_bytes())
    data[index_dataset(tmp_path / "shards").val.shards.offset[0] + 50] ^= 1
    shard.write_bytes(data)
    (fault,) = verify_dataset(tmp_path / "shards").faults
    assert fault.path == "val/class0/0000.jpg"
    assert "isn't what the index says" in fault.problem
