"""`dnctl data` through the command line: what it prints, and how it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.archives import write_cifar100, write_imagenet
from tests.images import write_folder


def dnctl(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from orchestrator.cli.app import main; main()"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cwd / "cache"), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )


def test_demo_says_what_to_type_next(tmp_path):
    pytest.importorskip("sklearn")
    done = dnctl("data", "demo", "digits", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1500 training and 297 validation images, 10 classes" in done.stdout
    assert "Next: dnctl launch demo --set data.root=digits" in done.stdout
    again = json.loads(dnctl("data", "demo", "digits", "--json", cwd=tmp_path).stdout)
    assert again == {"root": "digits", "train_images": 1500, "val_images": 297, "classes": 10, "written": False}


def test_index_prints_one_document(tmp_path):
    write_folder(tmp_path / "data", num_train=9, num_val=3, num_classes=3)
    (tmp_path / "data/val/class2/broken.jpg").write_text("x")
    done = dnctl("data", "index", "data", "--damaged", "skip", "--full-decode", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["classes"] == 3
    assert document["fingerprint"].startswith("sha256:")
    assert document["splits"]["train"]["images"] == 9
    assert document["splits"]["val"]["fully_decoded"] is True
    assert document["splits"]["val"]["left_out"] == [
        {"path": "val/class2/broken.jpg", "problem": "is no image that can be read"}
    ]


@pytest.mark.parametrize("options", [(), ("--full-decode",), ("--json",)])
def test_damaged_data_sets_are_refused_in_one_message(tmp_path, options):
    write_folder(tmp_path / "data", num_train=6, num_val=4, num_classes=2)
    (tmp_path / "data/train/class0/0000.jpg").write_bytes(b"")
    shutil.rmtree(tmp_path / "data/val/class1")
    done = dnctl("data", "index", "data", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "train/class0/0000.jpg is empty" in done.stderr
    assert "val/class1 is missing; train has this class" in done.stderr
    assert "--damaged skip" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_roots_are_refused_by_name(tmp_path):
    done = dnctl("data", "index", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere can't be listed: No such file or directory" in done.stderr


def test_prepare_says_what_is_there_and_what_to_type_next(tmp_path):
    write_imagenet(tmp_path / "in")
    options = ("--archives", "in", "--out", "out", "--sums", "in/MD5SUMS")
    done = dnctl("data", "prepare", "imagenet", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "imagenet is in out: 12 images in train, 6 images in val, 3 classes." in done.stdout
    assert "Next: dnctl data verify out" in done.stdout
    again = json.loads(dnctl("data", "prepare", "imagenet", *options, "--json", cwd=tmp_path).stdout)
    assert again == {
        "root": "out",
        "dataset": "imagenet",
        "images": {"train": 12, "val": 6},
        "classes": 3,
        "class_folders": 6,
        "class_folders_written": 0,
    }


def test_prepare_writes_shards_that_index_takes_and_goes_on_with_them(tmp_path):
    write_imagenet(tmp_path / "in")
    options = ("--archives", "in", "--out", "out", "--sums", "in/MD5SUMS", "--shards", "--json")
    done = dnctl("data", "prepare", "imagenet", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert (written["images"], written["shards"], written["shards_written"]) == ({"train": 12, "val": 6}, 2, 2)
    assert json.loads(dnctl("data", "prepare", "imagenet", *options, cwd=tmp_path).stdout)["shards_written"] == 0
    indexed = json.loads(dnctl("data", "index", "out", "--json", cwd=tmp_path).stdout)
    assert indexed["splits"]["train"]["images"] == 12
    assert {path.name for path in (tmp_path / "out").glob("*.tar")} == {"train-000000.tar", "val-000000.tar"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("imagenet", "--archives", "in"), "is cut short: it has 51,200 bytes, the official one 147,897,477,120"),
        (("cifar10", "--archives", "in"), "in has no cifar-10-python.tar.gz or cifar-10-binary.tar.gz"),
        (("svhn", "--archives", "nowhere"), "nowhere is no folder"),
        (("mnist", "--archives", "in"), "'mnist' is not one of"),
    ],
)
def test_what_cannot_be_prepared_is_said_in_one_message(tmp_path, arguments, said):
    write_imagenet(tmp_path / "in")
    done = dnctl("data", "prepare", *arguments, "--out", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path).glob("out/*/*.JPEG"))


def test_preparing_ends_on_ctrl_c_and_goes_on_later(tmp_path):
    """SIGINT while it writes; what was whole by then is kept."""
    write_cifar100(tmp_path / "in", "python")
    options = ("--archives", "in", "--out", "out", "--sums", "in/MD5SUMS", "--threads", "1")
    slowly = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a test run in the background ignores it
        "from orchestrator.data.prepare import pixels\n"
        "encode = pixels.stored_png\n"
        "pixels.stored_png = lambda picture: time.sleep(0.005) or encode(picture)\n"
        "from orchestrator.cli.app import main; main()"
    )
    command = [sys.executable, "-c", slowly, "data", "prepare", "cifar100", *options]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out/train/class_10").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command goes on where this one stopped." in said
    assert "Traceback" not in said
    assert not (tmp_path / "out/.dnctl/partial").exists()
    again = json.loads(dnctl("data", "prepare", "cifar100", *options, "--json", cwd=tmp_path).stdout)
    assert 100 <= again["class_folders_written"] <= 189
    assert again["images"] == {"train": 1000, "val": 100}


def test_verify_reports_and_exits_with_what_it_found(tmp_path):
    write_folder(tmp_path / "data", num_train=6, num_val=4, num_classes=2)
    shutil.copy(tmp_path / "data/train/class0/0000.jpg", tmp_path / "data/val/class1/copy.jpg")
    good = dnctl("data", "verify", "data", cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    assert "duplicates   2 files in 1 group: 1 in several splits" in good.stdout
    assert "fingerprint  sha256:" in good.stdout
    (tmp_path / "data/train/class0/0002.jpg").write_text("x")
    shutil.rmtree(tmp_path / "data/val/class1")
    bad = dnctl("data", "verify", "data", cwd=tmp_path)
    assert bad.returncode == 2
    assert "2 faults:" in bad.stdout
    assert "train/class0/0002.jpg is no image that can be read" in bad.stdout
    assert "Traceback" not in bad.stderr
    document = json.loads(dnctl("data", "verify", "data", "--json", cwd=tmp_path).stdout)
    assert document["valid"] is False
    assert document["fingerprint"] is None
    assert document["splits"]["train"]["images"] == 6
    assert {fault["path"] for fault in document["faults"]} == {"val/class1", "train/class0/0002.jpg"}


def test_stats_prints_what_a_recipe_takes(tmp_path):
    write_folder(tmp_path / "data", num_train=6, num_val=4, num_classes=2)
    done = dnctl("data", "stats", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train: 6 images of" in done.stdout
    assert "  data.mean=[0." in done.stdout
    document = json.loads(dnctl("data", "stats", "data", "--images", "4", "--json", cwd=tmp_path).stdout)
    assert document["channels"]["num_images"] == 4
    assert sum(document["train"]["short_side"]["counts"]) == 6
    assert document["train"]["short_side"]["edges"][-1] is None
