"""`dnctl data` through the command line: what it prints, and how it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
