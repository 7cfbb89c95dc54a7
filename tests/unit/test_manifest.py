"""Manifests: what is indexed, what is refused, and when the work is done again."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.data.index import build_manifest, index_dataset
from orchestrator.data.manifest import Rows, open_manifest, write_manifest
from orchestrator.errors import DataError
from tests.images import write_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", num_train=12, num_val=6, num_classes=3)


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fault_lines(root: Path, **options) -> list[str]:
    with pytest.raises(DataError) as caught:
        index_dataset(root, **options)
    return str(caught.value).splitlines()


def test_manifest_says_what_the_folder_holds(root):
    dataset = index_dataset(root)
    assert dataset.classes == ("class0", "class1", "class2")
    assert (dataset.train.num_samples, dataset.val.num_samples) == (12, 6)
    np.testing.assert_array_equal(dataset.train.labels, np.repeat([0, 1, 2], 4))
    for index in range(12):
        path = Path(dataset.train.path(index))
        assert path.parent == root / "train" / f"class{dataset.train.labels[index]}"
        with Image.open(path) as image:
            assert image.size == (dataset.train.widths[index], dataset.train.heights[index])
        assert path.stat().st_size == dataset.train.num_bytes[index]
    indices = np.array([7, 0, 7])
    assert dataset.train.paths(indices) == [dataset.train.path(index) for index in indices]


def test_copies_have_the_same_fingerprint_and_changes_another(root, tmp_path):
    first = index_dataset(root).fingerprint
    copy = write_folder(tmp_path / "copy", num_train=12, num_val=6, num_classes=3)
    assert index_dataset(copy, num_threads=1).fingerprint == first
    (copy / "train/class1/0001.jpg").rename(copy / "train/class1/renamed.jpg")
    assert index_dataset(copy).fingerprint != first


def test_second_opening_looks_at_no_image(root):
    index_dataset(root)
    looked_at = []
    index_dataset(root, progress=lambda done, total: looked_at.append(done))
    assert looked_at == []


@pytest.mark.parametrize("change", ["add", "remove", "rename", "new class"])
def test_changed_folders_are_indexed_again(root, change):
    before = index_dataset(root)
    some = root / "train/class0/0000.jpg"
    if change == "add":
        (some.parent / "another.jpg").write_bytes(some.read_bytes())
    elif change == "remove":
        some.unlink()
    elif change == "rename":
        some.rename(some.with_name("zzz.jpg"))
    else:
        for split in ("train", "val"):
            (root / split / "class9").mkdir()
            (root / split / "class9" / "x.jpg").write_bytes(some.read_bytes())
    assert index_dataset(root).train.fingerprint != before.train.fingerprint


def test_damaged_manifests_are_made_again(root):
    fingerprint = index_dataset(root).fingerprint
    (root / ".dnctl/train.arrow").write_bytes(b"no manifest")
    os.truncate(root / ".dnctl/val.arrow", 300)
    assert index_dataset(root).fingerprint == fingerprint
    (root / ".dnctl/train.arrow").write_bytes(b"no manifest")
    with pytest.raises(DataError, match=r"train\.arrow is no manifest"):
        open_manifest(root / ".dnctl/train.arrow")


def test_manifest_goes_to_the_cache_where_the_data_cannot_be_written(root, tmp_path):
    (root / ".dnctl").write_text("a file where the folder would be")
    fingerprint = index_dataset(root).fingerprint
    assert len(list((tmp_path / "cache/dnctl/manifests").rglob("*.arrow"))) == 2
    looked_at = []
    assert index_dataset(root, progress=lambda done, total: looked_at.append(done)).fingerprint == fingerprint
    assert looked_at == []


def test_all_faults_are_reported_together(root):
    (root / "train/class0/0000.jpg").write_bytes(b"")
    (root / "train/class0/0003.jpg").write_text("hello")
    whole = (root / "val/class1/0001.jpg").read_bytes()
    (root / "val/class1/0001.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train/class3").mkdir()
    (root / "train/class3/x.jpg").write_bytes(whole)
    (root / "train/class3/loop.jpg").symlink_to("loop.jpg")
    (root / "train/class2/inner").mkdir()
    lines = fault_lines(root)
    assert "6 faults" in lines[0]
    assert lines[1:7] == [
        "  train/class2/inner is a folder inside a class folder; images lie directly in the folder of their class",
        "  train/class3/loop.jpg is a link that can't be followed: Too many levels of symbolic links",
        "  val/class3 is missing; train has this class",
        "  train/class0/0000.jpg is empty",
        "  train/class0/0003.jpg is no image that can be read",
        lines[6],
    ]
    assert lines[6].startswith("  val/class1/0001.jpg is damaged: image file is truncated")


def test_twenty_faults_are_named_and_the_rest_counted(tmp_path):
    root = write_folder(tmp_path / "many", num_train=30, num_val=2, num_classes=2)
    for image in (root / "train").rglob("*.jpg"):
        image.write_bytes(b"")
    lines = fault_lines(root)
    assert "32 faults" in lines[0]  # and both classes have no image left
    assert sum(line.startswith("  train/") for line in lines) == 20
    assert "  … and 12 more" in lines


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "can't be listed: No such file or directory"),
        (lambda root: root.mkdir(), "train is missing; images lie in ROOT/train/CLASS/"),
        (lambda root: root.write_text(""), "can't be listed: Not a directory"),
        (lambda root: (root / "train").mkdir(parents=True), "train is empty"),
        (lambda root: (root / "train/a").mkdir(parents=True), "train/a is a class without images"),
        (lambda root: root.symlink_to(root), "can't be listed: Too many levels of symbolic links"),
    ],
)
def test_roots_without_a_data_set_are_refused(tmp_path, make, said):
    make(tmp_path / "data")
    assert any(said in line for line in fault_lines(tmp_path / "data"))


def test_images_outside_class_folders_are_explained(tmp_path, root):
    flat = tmp_path / "flat"
    (flat / "train").mkdir(parents=True)
    (flat / "val").mkdir()
    for folder in (flat / "train", flat / "val"):
        (folder / "a.jpg").write_bytes((root / "train/class0/0000.jpg").read_bytes())
    assert "holds 1 files and no class folder" in "".join(fault_lines(flat))


@pytest.mark.parametrize("name", ["żółw", "雪", "a b", "ё\nnewline", "%s{}", "n'\"01"])
def test_names_need_not_be_ascii(root, name):
    for split in ("train", "val"):
        (root / split / "class0").rename(root / split / name)
        for image in (root / split / name).iterdir():
            image.rename(image.with_name(name + image.name))
    dataset = index_dataset(root)
    assert name in dataset.classes
    assert all(Path(path).is_file() for path in dataset.train.paths(np.arange(12)))


def test_names_that_are_not_utf8_are_refused_by_name(root):
    image = (root / "train/class0/0000.jpg").read_bytes()
    Path(os.fsdecode(os.fsencode(root) + b"/train/class0/b\xe4r.jpg")).write_bytes(image)
    assert r"  train/class0/b\xe4r.jpg has a name that isn't UTF-8; rename it" in fault_lines(root)


def test_hidden_files_and_files_beside_classes_are_passed_over(root):
    fingerprint = index_dataset(root).fingerprint
    (root / "train/.DS_Store").write_bytes(b"x")
    (root / "train/class0/._0000.jpg").write_bytes(b"x")
    (root / "val/labels.txt").write_text("x")
    assert index_dataset(root).fingerprint == fingerprint


@pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user to lose the right to read")
def test_unreadable_files_are_refused_by_name(root, tmp_path):
    (root / "train/class0/0000.jpg").chmod(0)
    (root / "val/class1").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)
    code = (
        "import os; from PIL import Image; from orchestrator.data.index import index_dataset\n"
        f"Image.init(); os.setuid(65534); index_dataset({str(root)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "train/class0/0000.jpg can't be read: Permission denied" in done.stderr
    assert "val/class1 can't be listed: Permission denied" in done.stderr


def test_named_pipes_do_not_block(root):
    os.mkfifo(root / "train/class0/pipe.jpg")
    assert "  train/class0/pipe.jpg is no regular file" in fault_lines(root)


def test_damaged_images_are_left_out_if_asked_and_the_fingerprint_covers_them(root, tmp_path):
    whole = index_dataset(root).train.fingerprint
    (root / "train/class0/extra.jpg").write_bytes(b"damaged")
    skipped = index_dataset(root, damaged="skip").train
    assert skipped.num_samples == 12
    assert [str(fault) for fault in skipped.left_out] == ["train/class0/extra.jpg is no image that can be read"]
    assert skipped.fingerprint != whole
    assert "  train/class0/extra.jpg is no image that can be read" in fault_lines(root)
    (root / "train/class0/extra.jpg").write_bytes((root / "train/class0/0000.jpg").read_bytes())  # repaired in place
    assert index_dataset(root).train.num_samples == 13


def test_classes_are_not_left_empty_by_leaving_images_out(root):
    for image in (root / "train/class1").iterdir():
        image.write_bytes(b"damaged")
    assert "  train/class1 has damaged images alone" in fault_lines(root, damaged="skip")


def test_full_decode_finds_damage_that_the_ends_do_not_show(root):
    path = root / "train/class0/0000.jpg"
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + b"\xff\x39" + data[middle + 2 :])  # a marker that no JPEG has
    index_dataset(root)
    assert any("train/class0/0000.jpg is damaged" in line for line in fault_lines(root, full_decode=True))


def test_progress_counts_both_splits(root):
    told = []
    index_dataset(root, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (18, 18)


def test_one_split_can_be_indexed_alone(root):
    assert build_manifest(root, "val").fingerprint == index_dataset(root).val.fingerprint


@pytest.mark.slow
def test_a_million_rows_open_without_being_read(tmp_path):
    num_rows = 1_281_167
    rows = Rows(
        relative_paths=[f"n{i // 1300:08d}/n{i // 1300:08d}_{i}.JPEG" for i in range(num_rows)],
        labels=np.arange(num_rows) // 1300,
        widths=np.full(num_rows, 500),
        heights=np.full(num_rows, 375),
        num_bytes=np.full(num_rows, 110_000),
    )
    path = tmp_path / "train.arrow"
    write_manifest(
        path, rows, root=tmp_path, split="train", classes=["c"] * 1000, left_out=[], full_decode=False, stamp=""
    )
    tracemalloc.start()
    manifest = open_manifest(path)
    assert manifest.path(num_rows - 1).endswith("/train/n00000985/n00000985_1281166.JPEG")
    assert len(manifest.paths(np.arange(0, num_rows, 10_000))) == 129
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**20
    assert not manifest.labels.flags.owndata
    assert not manifest.labels.flags.writeable
