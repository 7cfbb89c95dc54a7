"""Data sets out of their official archives: what is written, what is refused, and what an interruption leaves."""

import errno
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.data import shard_writer
from orchestrator.data.batch import SampleRequest
from orchestrator.data.image import inspect_encoded
from orchestrator.data.index import build_manifest, index_dataset
from orchestrator.data.loader import available_loader, open_loader
from orchestrator.data.prepare import datasets, folder
from orchestrator.data.prepare import shards as into_shards
from orchestrator.data.prepare.datasets import DATASETS, Request, archives_of, open_archived, prepare
from orchestrator.data.prepare.png import stored_png
from orchestrator.data.prepare.record import preparing, read_record
from orchestrator.data.sharding import write_shards
from orchestrator.data.transforms import EvalTransform
from orchestrator.data.verify import verify_dataset
from orchestrator.errors import DataError
from tests import archives as made

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    return made.write_imagenet(tmp_path / "archives")


def request_of(dataset: str, archives: Path) -> Request:
    return Request(dataset=dataset, archives=archives, sums=archives / "MD5SUMS")


def prepared(dataset: str, archives: Path, out: Path, *, progress=lambda *told: None):
    return prepare(request_of(dataset, archives), out, num_threads=2, progress=progress)


def refusal(dataset: str, archives: Path, out: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepared(dataset, archives, out)
    return str(caught.value)


def image_files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".dnctl" not in path.parts
    }


def rewrite(archive: Path, change) -> None:
    """Replace a tar archive by one with its files changed; its sum is put down anew."""
    mode = "w:gz" if archive.name.endswith("gz") else "w"
    with tarfile.open(archive) as tar:
        files = {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}
    archive.write_bytes(made.tar_of(change(files), mode=mode))
    made.write_sums(archive.parent)


# ImageNet


def test_imagenet_is_laid_out_by_the_devkit(imagenet, tmp_path):
    done = prepared("imagenet", imagenet, tmp_path / "out")
    classes = [name for name, count in made.SYNSETS.items() if count]
    assert done.num_images == {
        "train": {name: made.SYNSETS[name] for name in classes},
        "val": dict.fromkeys(classes, made.NUM_VAL_BY_CLASS),
    }
    files = image_files(tmp_path / "out")
    assert files["train/n01440764/n01440764_9.JPEG"] == made.jpeg(1440764 + 9)
    for number in range(1, 7):  # dealt to the classes in turn; the devkit numbers them in another order
        assert files[f"val/{classes[(number - 1) % 3]}/ILSVRC2012_val_{number:08d}.JPEG"] == made.jpeg(1000 + number)
    assert len(files) == 12 + 6
    assert index_dataset(tmp_path / "out", full_decode=True).classes == tuple(classes)


def test_images_come_in_the_order_of_the_manifest(imagenet, tmp_path):
    request = request_of("imagenet", imagenet)
    prepared("imagenet", imagenet, tmp_path / "out")
    archived = open_archived(request, archives_of(request))
    for split in ("train", "val"):
        manifest = build_manifest(tmp_path / "out", split)
        opened = [(part, part.open()) for part in archived.parts if part.split == split]
        names = [f"{part.class_name}/{name}" for part, images in opened for name in images.names]
        contents = [images.read(position) for _, images in opened for position in range(len(images.names))]
        assert names == manifest.relative_paths.to_pylist()
        assert contents == [Path(path).read_bytes() for path in manifest.paths(np.arange(len(names)))]
        assert [n for _, images in opened for n in images.num_bytes] == [len(content) for content in contents]


def test_the_official_sums_are_those_that_torchvision_has():
    from torchvision.datasets import CIFAR10, CIFAR100, SVHN, imagenet

    theirs = dict(imagenet.ARCHIVE_META.values())
    theirs |= {cls.filename: cls.tgz_md5 for cls in (CIFAR10, CIFAR100)}
    theirs |= {name: md5 for _, name, md5 in SVHN.split_list.values()}
    ours = {a.name: a.md5 for data in DATASETS.values() for choice in data.choices for a in choice}
    assert theirs.items() <= ours.items()
    assert set(ours) - set(theirs) == {"cifar-10-binary.tar.gz", "cifar-100-binary.tar.gz"}


# Archives that aren't what they should be


def test_wrong_sums_are_all_named_and_nothing_is_written(imagenet, tmp_path):
    for name in (TRAIN, DEVKIT):
        data = bytearray((imagenet / name).read_bytes())
        data[500] ^= 1
        (imagenet / name).write_bytes(data)
    message = refusal("imagenet", imagenet, tmp_path / "out")
    assert f"{TRAIN} has the MD5 sum" in message
    assert f"{DEVKIT} has the MD5 sum" in message
    assert VAL not in message
    assert "Download what is named again" in message
    assert image_files(tmp_path / "out") == {}


def test_archives_of_another_size_are_refused_without_being_read(imagenet, tmp_path):
    with pytest.raises(DataError) as caught:  # which reading them would say of their sums
        prepare(Request(dataset="imagenet", archives=imagenet), tmp_path / "out", progress=print)
    assert f"{TRAIN} is cut short: it has 51,200 bytes, the official one 147,897,477,120" in str(caught.value)


@pytest.mark.parametrize("name", [TRAIN, VAL, DEVKIT])
def test_missing_archives_are_named(imagenet, tmp_path, name):
    (imagenet / name).unlink()
    assert f"has no {name}. The official archives are offered at https://image-net.org" in refusal(
        "imagenet", imagenet, tmp_path / "out"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [TRAIN, VAL, DEVKIT])
@pytest.mark.parametrize("kept", [0.2, 0.4, 0.55])
def test_archives_that_were_cut_before_they_were_summed_are_refused(imagenet, tmp_path, name, kept):
    size = (imagenet / name).stat().st_size
    os.truncate(imagenet / name, int(size * kept))
    made.write_sums(imagenet)
    message = refusal("imagenet", imagenet, tmp_path / "out")
    assert name in message
    assert "cut short" in message or "doesn't hold" in message or "lacks" in message
    assert "n01440764_10026.JPEG" not in " ".join(image_files(tmp_path / "out")) or name != TRAIN


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo("n01440764_9.JPEG")
    info.type, info.linkname = kind, target
    return info


def special(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("n01440764_9.JPEG")
    info.type = kind
    return info


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ({"/etc/cron.d/evil": b"x"}, "/etc/cron.d/evil points out of the folder"),
        ({"../../evil.JPEG": b"x"}, "../../evil.JPEG points out of the folder"),
        ({"n/../../evil": b"x"}, "n/../../evil points out of the folder"),
        ({"x": link("/etc/passwd")}, "is a link to /etc/passwd"),
        ({"x": link("n01440764_3.JPEG", tarfile.LNKTYPE)}, "is a link to n01440764_3.JPEG"),
        ({"x": special(tarfile.CHRTYPE)}, "is neither a file nor a folder"),
        ({"x": special(tarfile.FIFOTYPE)}, "is neither a file nor a folder"),
    ],
)
@pytest.mark.parametrize("where", ["outer", "inner", "val", "devkit"])
def test_members_that_would_escape_are_refused(imagenet, tmp_path, member, said, where):
    if where == "inner":
        inner = "n01440764.tar"
        rewrite(imagenet / TRAIN, lambda files: files | {inner: made.tar_of(unpacked(files[inner]) | member)})
    else:
        archive = imagenet / {"outer": TRAIN, "val": VAL, "devkit": DEVKIT}[where]
        rewrite(archive, lambda files: files | member)
    assert said in refusal("imagenet", imagenet, tmp_path / "deep" / "er" / "out")
    assert not list(tmp_path.rglob("*evil*"))


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}


@pytest.mark.parametrize(
    ("archive", "change", "said"),
    [
        (TRAIN, lambda files: drop(files, "n01443537.tar"), "it lacks n01443537.tar"),
        (TRAIN, lambda files: files | {"n09999999.tar": b""}, "it holds n09999999.tar, unknown there"),
        (VAL, lambda files: drop(files, "ILSVRC2012_val_00000004.JPEG"), "it lacks ILSVRC2012_val_00000004.JPEG"),
        (
            TRAIN,
            lambda files: files | {"n01443537.tar": made.tar_of({"n01443537_1.JPEG": b"x"})},
            "in its n01443537.tar, holds 1 images, where the development kit says 3",
        ),
        (
            TRAIN,
            lambda files: files | {"n01443537.tar": made.tar_of({"n01440764_1.JPEG": b"x"})},
            "holds n01440764_1.JPEG, which is no image of the class",
        ),
        (TRAIN, lambda files: files | {"n01443537.tar": b"no tar" * 200}, "n01443537.tar, is damaged or cut short"),
        (DEVKIT, lambda files: {name: data for name, data in files.items() if "meta" not in name}, "doesn't hold meta"),
        (
            DEVKIT,
            lambda files: {name: b"no matlab" if "meta" in name else data for name, data in files.items()},
            "has a .mat file that can't be read",
        ),
        (
            DEVKIT,
            lambda files: {name: b"1\n77\n" if "truth" in name else data for name, data in files.items()},
            "doesn't hold what ImageNet's development kit holds: KeyError(77)",
        ),
    ],
)
def test_archives_that_do_not_fit_together_are_refused_by_name(imagenet, tmp_path, archive, change, said):
    rewrite(imagenet / archive, change)
    message = refusal("imagenet", imagenet, tmp_path / "out")
    assert archive in message
    assert said in message


def drop(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {other: data for other, data in files.items() if other != name}


@pytest.mark.parametrize(
    ("content", "said"),
    [("hello\n", "isn't what md5sum writes"), ("", f"has no sum of {TRAIN}, {VAL} and {DEVKIT}")],
)
def test_files_that_hold_no_sums_are_refused(imagenet, tmp_path, content, said):
    (imagenet / "MD5SUMS").write_text(content)
    assert said in refusal("imagenet", imagenet, tmp_path / "out")


# Interruptions


def test_preparing_again_writes_nothing_and_reads_no_archive(imagenet, tmp_path):
    prepared("imagenet", imagenet, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/train").rglob("*")}
    told = []
    done = prepared("imagenet", imagenet, tmp_path / "out", progress=lambda *what: told.append(what))
    assert (done.num_units, done.num_units_written) == (6, 0)
    assert told == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/train").rglob("*")} == before


def test_an_interrupted_preparation_goes_on_with_what_is_missing(imagenet, tmp_path, monkeypatch):
    prepared("imagenet", imagenet, tmp_path / "whole")
    monkeypatch.setattr(folder, "_REPORTED_BYTES", 1)

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "writing" and done > total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared("imagenet", imagenet, tmp_path / "out", progress=interrupt)
    assert sorted(path.name for path in (tmp_path / "out/.dnctl").iterdir()) == ["prepare.lock", "prepared.json"]
    assert read_record(tmp_path / "out").num_images is None
    left = image_files(tmp_path / "out")
    done = prepared("imagenet", imagenet, tmp_path / "out")
    assert done.num_units_written > 0
    assert image_files(tmp_path / "out") == image_files(tmp_path / "whole")
    assert left.items() <= image_files(tmp_path / "out").items()
    assert read_record(tmp_path / "out").num_images == done.num_images


def test_a_killed_preparation_leaves_whole_classes_alone(tmp_path):
    """SIGKILL while files are written: no class folder is there in part, and the next run makes it whole."""
    archives = made.write_cifar100(tmp_path / "archives", "binary")
    out = tmp_path / "out"
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from orchestrator.data.prepare.datasets import Request, prepare\n"
        "from orchestrator.data.prepare import pixels\n"
        "encode = pixels.stored_png\n"
        "pixels.stored_png = lambda picture: time.sleep(0.002) or encode(picture)\n"
        "archives, out = map(Path, sys.argv[1:])\n"
        "request = Request(dataset='cifar100', archives=archives, sums=archives / 'MD5SUMS')\n"
        "prepare(request, out, progress=lambda *told: None)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, archives, out])
    deadline = time.monotonic() + 60
    while not (out / "train" / "class_20").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = list((out / "train").iterdir())
    assert 20 <= len(there) < 100
    assert all(len(list(class_folder.iterdir())) == 10 for class_folder in there)
    done = prepared("cifar100", archives, out)
    assert done.num_units_written <= 200 - len(there)
    assert sum(len(list(class_folder.iterdir())) for class_folder in (out / "train").iterdir()) == 1000
    assert not (out / ".dnctl" / "partial").exists()


def test_two_runs_at_once_are_refused(imagenet, tmp_path):
    with preparing(tmp_path / "out"):
        code = (
            "import sys; from pathlib import Path\n"
            "from orchestrator.data.prepare.datasets import Request, prepare\n"
            "archives, out = map(Path, sys.argv[1:])\n"
            "prepare(Request(dataset='imagenet', archives=archives, sums=archives / 'MD5SUMS'), out, progress=print)\n"
        )
        command = [sys.executable, "-c", code, imagenet, tmp_path / "out"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"is being prepared by process {os.getpid()} on " in done.stderr
    assert image_files(tmp_path / "out") == {}
    prepared("imagenet", imagenet, tmp_path / "out")  # the lock went with its process


# Straight into shards

SHARD_BYTES = 20_000


def sharded(dataset: str, archives: Path, out: Path, *, shard_bytes: int = SHARD_BYTES):
    request = replace(request_of(dataset, archives), shard_bytes=shard_bytes)
    return prepare(request, out, num_threads=2, progress=lambda *told: None)


def shards_in(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.glob("*.tar"))}


@pytest.mark.parametrize(
    ("dataset", "write"),
    [("imagenet", made.write_imagenet), ("cifar10", lambda folder: made.write_cifar10(folder, "python"))],
)
def test_shards_straight_from_the_archives_are_those_of_the_folder_to_the_bit(tmp_path, dataset, write):
    archives = write(tmp_path / "archives")
    folder_done = prepared(dataset, archives, tmp_path / "folder")
    of_folder = index_dataset(tmp_path / "folder")
    write_shards(of_folder, tmp_path / "detour", shard_bytes=SHARD_BYTES)
    done = sharded(dataset, archives, tmp_path / "straight")
    assert done.num_images == folder_done.num_images
    assert done.num_units == len(shards_in(tmp_path / "straight")) > 2
    assert shards_in(tmp_path / "straight") == shards_in(tmp_path / "detour")
    of_shards = index_dataset(tmp_path / "straight")
    assert of_shards.fingerprint == of_folder.fingerprint
    assert of_shards.classes == of_folder.classes
    assert verify_dataset(tmp_path / "straight").expectation.source == "the archives that it was prepared from"
    assert verify_dataset(tmp_path / "straight").faults == []
    assert {path.name for path in (tmp_path / "straight/.dnctl").iterdir()} == {"prepare.lock", "prepared.json"}


def test_shards_that_were_interrupted_go_on_with_what_is_missing(imagenet, tmp_path, monkeypatch):
    look, looked = inspect_encoded, []

    def interrupted(image, **options):
        looked.append(image)
        if len(looked) == 9:
            raise KeyboardInterrupt
        return look(image, **options)

    monkeypatch.setattr(into_shards, "inspect_encoded", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sharded("imagenet", imagenet, tmp_path / "out")
    whole = shards_in(tmp_path / "out")
    assert whole
    assert not list((tmp_path / "out").glob("*.arrow"))
    assert not list((tmp_path / "out").rglob("*.part"))
    with pytest.raises(DataError, match="train is missing"):
        index_dataset(tmp_path / "out")
    done = sharded("imagenet", imagenet, tmp_path / "out")
    assert done.num_units_written == done.num_units - len(whole)
    assert sharded("imagenet", imagenet, tmp_path / "out").num_units_written == 0
    assert sharded("imagenet", imagenet, tmp_path / "other").num_units == done.num_units
    assert shards_in(tmp_path / "out") == shards_in(tmp_path / "other")


def test_a_shard_that_was_cut_before_its_set_was_complete_is_written_again(imagenet, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer, "write_manifest", fail)
        with pytest.raises(DataError, match="broken"):
            sharded("imagenet", imagenet, tmp_path / "out")
    shard = tmp_path / "out/train-000001.tar"
    os.truncate(shard, shard.stat().st_size - 1)
    assert sharded("imagenet", imagenet, tmp_path / "out").num_units_written == 1
    assert verify_dataset(tmp_path / "out").faults == []


def test_a_shard_that_was_cut_since_is_named(imagenet, tmp_path):
    sharded("imagenet", imagenet, tmp_path / "out")
    shard = tmp_path / "out/train-000001.tar"
    os.truncate(shard, 1000)
    with pytest.raises(DataError, match=r"train-000001.tar isn't as it was written: .* and has 1,000. Remove"):
        sharded("imagenet", imagenet, tmp_path / "out")
    shard.unlink()
    with pytest.raises(DataError, match=r"train-000001.tar isn't as it was written: .* and is missing. Remove"):
        sharded("imagenet", imagenet, tmp_path / "out")
    (tmp_path / "out/train.index.arrow").unlink()
    sharded("imagenet", imagenet, tmp_path / "out")
    assert verify_dataset(tmp_path / "out").faults == []


def test_images_that_cannot_go_into_shards_are_all_named(imagenet, tmp_path):
    def change(files):
        inner = unpacked(files["n01440764.tar"])
        gif = b"GIF89a" + bytes(20)
        return files | {"n01440764.tar": made.tar_of(inner | dict.fromkeys(list(inner)[:2], gif))}

    rewrite(imagenet / TRAIN, change)
    with pytest.raises(DataError) as caught:
        sharded("imagenet", imagenet, tmp_path / "out")
    assert "2 faults" in str(caught.value)
    assert "train/n01440764/n01440764_10026.JPEG is" in str(caught.value)
    assert "dnctl data shard FOLDER OUT --damaged skip" in str(caught.value)
    assert not list((tmp_path / "out").glob("*.arrow"))


def test_a_folder_is_not_gone_on_with_as_shards_nor_the_other_way_round(imagenet, tmp_path):
    prepared("imagenet", imagenet, tmp_path / "folder")
    sharded("imagenet", imagenet, tmp_path / "shards")
    with pytest.raises(DataError, match=r"was prepared as a folder of images and not shards of 0.02 MB. Name another"):
        sharded("imagenet", imagenet, tmp_path / "folder")
    with pytest.raises(DataError, match=r"was prepared as shards of 0.02 MB and not shards of 10 MB"):
        sharded("imagenet", imagenet, tmp_path / "shards", shard_bytes=10**7)
    assert "as shards of 0.02 MB and not a folder" in refusal("imagenet", imagenet, tmp_path / "shards")


def test_a_class_without_validation_images_is_refused(imagenet, tmp_path):
    def change(files):
        return {name: data.replace(b"1\n", b"2\n") if "ground" in name else data for name, data in files.items()}

    rewrite(imagenet / DEVKIT, change)
    assert "says of no validation image that it is of n0" in refusal("imagenet", imagenet, tmp_path / "out")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small filesystem, which takes root")
def test_a_disk_that_fills_up_leaves_no_shard_set_and_whole_shards_alone(tmp_path, monkeypatch):
    archives = made.write_cifar10(tmp_path / "archives", "binary")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=True)
    try:
        monkeypatch.setattr(shard_writer, "check_space", lambda root, **needed: None)  # somebody else filled it since
        with pytest.raises(DataError, match=r"The disk is full: .*\.tar can't be written. Free some space and run the"):
            sharded("cifar10", archives, disk / "out", shard_bytes=50_000)
        assert not list((disk / "out").rglob("*.part"))
        assert not list((disk / "out").glob("*.arrow"))
        whole = shards_in(disk / "out")
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        done = sharded("cifar10", archives, disk / "out", shard_bytes=50_000)
        assert done.num_units_written == done.num_units - len(whole)
        assert verify_dataset(disk / "out").faults == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_class_folders_that_were_changed_since_are_named_and_written_anew_once_removed(imagenet, tmp_path):
    prepared("imagenet", imagenet, tmp_path / "out")
    (tmp_path / "out/train/n01440764/n01440764_9.JPEG").unlink()
    assert "train/n01440764 has 4 files, not 5" in refusal("imagenet", imagenet, tmp_path / "out")
    for image in (tmp_path / "out/train/n01440764").iterdir():
        image.unlink()
    (tmp_path / "out/train/n01440764").rmdir()
    assert prepared("imagenet", imagenet, tmp_path / "out").num_units_written == 1
    assert (tmp_path / "out/train/n01440764/n01440764_9.JPEG").exists()


# Where it is written


def test_folders_with_something_else_in_them_are_left_alone(imagenet, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("")
    assert "isn't empty, and nothing was prepared there before" in refusal("imagenet", imagenet, out)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_folders_of_another_data_set_are_left_alone(imagenet, tmp_path):
    out = tmp_path / "out"
    cifar = made.write_cifar10(tmp_path / "cifar", "python")
    prepared("cifar10", cifar, out)
    assert "was prepared as cifar10 and not imagenet. Name another" in refusal("imagenet", imagenet, out)
    binary = made.write_cifar10(tmp_path / "binary", "binary")
    message = refusal("cifar10", binary, out)
    assert "was prepared from cifar-10-python.tar.gz" in message
    assert "and not cifar-10-binary.tar.gz" in message


def test_places_that_cannot_be_written_are_named(imagenet, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file/out/.dnctl can't be written: Not a directory" in refusal(
        "imagenet", imagenet, tmp_path / "file" / "out"
    )


def test_room_is_looked_for_before_anything_is_written(imagenet, tmp_path, monkeypatch):
    status = os.statvfs(tmp_path)
    full = os.statvfs_result([*status[:3], 20, 20, *status[5:]])
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    message = refusal("imagenet", imagenet, tmp_path / "out")
    assert "There isn't room for the data set" in message
    assert "MB are needed, 0.1 MB are free. Free some, or name a folder on a larger disk." in message
    no_inodes = os.statvfs_result([*status[:5], 100, 3, 3, *status[8:]])
    monkeypatch.setattr(os, "statvfs", lambda path: no_inodes)
    assert "18 files (inodes) are needed, 3 are free" in refusal("imagenet", imagenet, tmp_path / "out")
    assert image_files(tmp_path / "out") == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small filesystem, which takes root")
def test_a_disk_that_fills_up_in_the_middle_is_reported_and_what_is_whole_stays(tmp_path, monkeypatch):
    archives = made.write_cifar10(tmp_path / "archives", "binary")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=True)
    try:
        monkeypatch.setattr(datasets, "check_space", lambda root, **needed: None)  # somebody else filled it since
        message = refusal("cifar10", archives, disk / "out")
        assert "The disk is full: " in message
        assert "Free some space and run the same command again" in message
        there = [class_folder for split in ("train", "val") for class_folder in (disk / "out" / split).glob("*")]
        assert all(len(list(class_folder.iterdir())) in (2, 10) for class_folder in there)
        assert not (disk / "out/.dnctl/partial").exists()
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        done = prepared("cifar10", archives, disk / "out")
        assert done.num_units_written == 20 - len(there)
    finally:
        subprocess.run(["umount", disk], check=True)


# CIFAR and SVHN


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def test_cifar10_holds_every_picture_to_the_bit_in_both_versions(tmp_path):
    for version in ("python", "binary"):
        prepared("cifar10", made.write_cifar10(tmp_path / version, version), tmp_path / f"out-{version}")
    assert image_files(tmp_path / "out-python") == image_files(tmp_path / "out-binary")
    pictures = made.small_pictures(120, seed=0)
    for number in range(120):
        split, position = ("train", number) if number < 100 else ("val", number - 100)
        class_name = made.CIFAR10_NAMES[7 * number % 10]
        found = picture(tmp_path / f"out-python/{split}/{class_name}/{position:06d}.png")
        np.testing.assert_array_equal(found, pictures[number])
    assert index_dataset(tmp_path / "out-python").classes == tuple(made.CIFAR10_NAMES)


def test_cifar100_labels_are_the_fine_ones_in_both_versions(tmp_path):
    for version in ("python", "binary"):
        prepared("cifar100", made.write_cifar100(tmp_path / version, version), tmp_path / f"out-{version}")
    assert image_files(tmp_path / "out-python") == image_files(tmp_path / "out-binary")
    dataset = index_dataset(tmp_path / "out-python")
    for index, path in enumerate(dataset.train.relative_paths.to_pylist()):
        assert dataset.train.labels[index] == 13 * int(Path(path).stem) % 100


def test_pickles_that_would_execute_something_are_refused(tmp_path):
    archives = made.write_cifar10(tmp_path / "archives", "python")
    evil = b"\x80\x02cos\nsystem\n(U\x0atouch evil\ntR."

    def change(files):
        return {name: evil if name.endswith("data_batch_3") else data for name, data in files.items()}

    rewrite(archives / "cifar-10-python.tar.gz", change)
    assert "a pickle wants to call os.system" in refusal("cifar10", archives, tmp_path / "out")


@pytest.mark.parametrize("version", ["python", "binary"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"\x80\x02N."])
def test_batches_that_are_damaged_are_refused(tmp_path, version, damage):
    archives = made.write_cifar10(tmp_path / "archives", version)

    def change(files):
        return {name: damage(data) if "data_batch_2" in name else data for name, data in files.items()}

    rewrite(archives / f"cifar-10-{version}.tar.gz", change)
    message = refusal("cifar10", archives, tmp_path / "out")
    assert f"cifar-10-{version}.tar.gz doesn't hold what CIFAR's archives hold" in message


def test_svhn_holds_every_picture_to_the_bit_and_0_is_the_class_0(tmp_path):
    archives = made.write_svhn(tmp_path / "archives", num_train=60, num_extra=40, num_test=20)
    done = prepared("svhn", archives, tmp_path / "out")
    assert {split: set(counts.values()) for split, counts in done.num_images.items()} == {"train": {10}, "val": {2}}
    pictures = {"train_": made.small_pictures(60, seed=10), "extra_": made.small_pictures(40, seed=11)}
    for digit in range(10):
        expected = {f"{name}{n:06d}": (name, n) for name in pictures for n in of_digit(digit, len(pictures[name]))}
        files = {path.stem: picture(path) for path in (tmp_path / "out/train" / str(digit)).iterdir()}
        assert files.keys() == expected.keys()
        assert all((files[stem] == pictures[name][n]).all() for stem, (name, n) in expected.items())
        for n in of_digit(digit, 20):
            found = picture(tmp_path / f"out/val/{digit}/{n:06d}.png")
            np.testing.assert_array_equal(found, made.small_pictures(20, seed=12)[n])


def of_digit(digit: int, num_images: int) -> range:
    return range((digit - 1) % 10, num_images, 10)  # the labels are 1 … 9, 10 in turn


def test_svhn_files_that_hold_something_else_are_refused(tmp_path):
    from scipy.io import savemat

    archives = made.write_svhn(tmp_path / "archives", num_train=20, num_extra=20, num_test=20)
    savemat(archives / "extra_32x32.mat", {"X": np.zeros((32, 32, 3, 5)), "y": np.ones(5)})
    made.write_sums(archives)
    assert "extra_32x32.mat doesn't hold what SVHN's files hold" in refusal("svhn", archives, tmp_path / "out")


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 1, 3), (5, 7, 3), (147, 148, 3)])
def test_stored_png_is_read_back_to_the_bit(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    with Image.open(io.BytesIO(stored_png(pixels))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_images_too_large_for_a_stored_block_are_refused():
    with pytest.raises(ValueError, match="no small RGB image"):
        stored_png(np.zeros((148, 148, 3), dtype=np.uint8))


def test_requests_know_what_they_ask_for(imagenet):
    request = request_of("imagenet", imagenet)
    assert [archive.name for archive in archives_of(request)] == [TRAIN, VAL, DEVKIT]
    official = archives_of(replace(request, sums=None))
    assert [archive.md5 for archive in official] == [archive.md5 for archive in DATASETS["imagenet"].choices[0]]


@pytest.mark.skipif(available_loader() != "dali", reason="NVIDIA DALI isn't installed here")
def test_both_loaders_read_prepared_pictures_as_they_are(tmp_path):
    prepared("cifar10", made.write_cifar10(tmp_path / "archives", "binary"), tmp_path / "out")
    manifest = build_manifest(tmp_path / "out", "val")
    rows = np.arange(manifest.num_samples)
    numbers = [100 + int(Path(path).stem) for path in manifest.paths(rows)]
    for kind in ("dali", "pytorch"):
        with open_loader(
            kind,
            manifest,
            EvalTransform(resize=32, crop=32, interpolation="bilinear"),
            seed=0,
            requests=iter([SampleRequest(epoch=0, indices=rows)]),
            max_batch_size=64,
            device="cpu",
            num_threads=2,
        ) as loader:
            batch = next(loader)
        np.testing.assert_array_equal(batch.images.numpy(), made.small_pictures(120, seed=0)[numbers])
        assert batch.labels.tolist() == [7 * number % 10 for number in numbers]
