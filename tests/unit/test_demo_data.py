"""The demo data set."""

import numpy as np
import pytest
from PIL import Image

from orchestrator.data.index import index_dataset
from orchestrator.data.prepare.demo import write_demo
from orchestrator.errors import DataError

pytest.importorskip("sklearn")


def test_demo_is_a_data_set_of_digits(tmp_path):
    told = []
    demo = write_demo(tmp_path / "digits", progress=lambda done, total: told.append((done, total)))
    assert demo.written
    assert told[-1] == (1797, 1797)
    dataset = index_dataset(tmp_path / "digits", full_decode=True)
    assert dataset.classes == tuple("0123456789")
    assert (dataset.train.num_samples, dataset.val.num_samples) == (1500, 297)
    assert (demo.num_train_images, demo.num_val_images, demo.num_classes) == (1500, 297, 10)
    assert set(np.bincount(dataset.val.labels)) <= {28, 29, 30, 31}
    with Image.open(dataset.train.path(0)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))


def test_writing_again_changes_nothing(tmp_path):
    write_demo(tmp_path / "digits")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "digits").rglob("*")}
    assert not write_demo(tmp_path / "digits").written
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "digits").rglob("*")} == before


def test_two_copies_are_the_same(tmp_path):
    write_demo(tmp_path / "a")
    write_demo(tmp_path / "deeper" / "b")
    assert index_dataset(tmp_path / "a").fingerprint == index_dataset(tmp_path / "deeper" / "b").fingerprint


def test_folders_with_something_else_in_them_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(DataError, match="isn't empty"):
        write_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_interruption_leaves_nothing_behind(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "digits", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"can't be written to .*file/digits: Not a directory"):
        write_demo(tmp_path / "file" / "digits")
