"""Storage that is full or can't be written: one clear error, and nothing that was there is harmed."""

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import StorageError
from orchestrator.run import files
from orchestrator.run.catalogue import find_run, list_runs
from orchestrator.run.checkpoints import newest_whole, read_checkpoint, write_checkpoint
from orchestrator.run.directory import RunDirectory
from orchestrator.run.segments import SegmentWriter, read_segments
from tests.checkpoint_files import contents_of

DISK_BYTES = 256 * 1024
NOBODY = 65534


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on a disk of 256 KiB: a real one where mounting is allowed, otherwise writes that fail likewise."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if not is_mounted:
        monkeypatch.setattr(files, "write_through", _write_on_small_disk)
    yield disk
    if is_mounted:
        subprocess.run(["umount", str(disk)], check=True)


def _write_on_small_disk(path: Path, content: bytes) -> None:
    used = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
    path.write_bytes(content[: max(DISK_BYTES - used, 0)])
    if used + len(content) > DISK_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _without_rights() -> Iterator[None]:
    """As a person who is not root, and who owns nothing here."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give rights up; others have none to begin with")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A directory that everybody may read and only its owner may write."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_a_full_disk_is_named_and_the_last_checkpoint_stays_whole(small_disk: Path):
    directory = small_disk / "checkpoints"
    contents = contents_of(1, num_values=12_000)
    write_checkpoint(directory / "step-00000001.1", contents, metrics={}, may_commit=lambda: None)
    larger = contents_of(2, num_values=100_000)
    with pytest.raises(StorageError) as caught:
        write_checkpoint(directory / "step-00000002.1", larger, metrics={}, may_commit=lambda: None)
    assert caught.value.exit_code == 7
    assert str(caught.value) == (
        f"cannot write the checkpoint {directory}/step-00000002.1: No space left on device: the disk is full; "
        "free some space (old checkpoints are under checkpoints/) and resume the run"
    )
    assert [entry.name for entry in directory.iterdir()] == ["step-00000001.1"]
    assert read_checkpoint(directory / "step-00000001.1") == contents
    found = newest_whole(directory, passed_over=lambda *_: None)
    assert found is not None
    assert found[0].step == 1


def test_a_full_disk_leaves_a_file_that_was_to_be_replaced(small_disk: Path):
    path = small_disk / "progress.json"
    files.write_json(path, {"step": 1})
    with pytest.raises(StorageError, match=r"cannot write .*progress.json: No space left on device: the disk is full"):
        files.write_json(path, {"step": "2" * 2 * DISK_BYTES})
    assert files.read_json(path) == {"step": 1}
    assert list(small_disk.iterdir()) == [path]


def test_a_log_on_a_full_disk_goes_on_when_there_is_space(small_disk: Path):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (DISK_BYTES - 8192))
    writer = SegmentWriter(small_disk, "metrics")
    writer.append({"text": "y" * 20_000})
    with pytest.raises(StorageError, match="the disk is full"):
        writer.flush()
    ballast.unlink()
    writer.close()
    assert [len(row["text"]) for row in read_segments(small_disk, "metrics")] == [20_000]


def test_storage_that_cannot_be_written_is_named(foreign: Path):
    run = RunDirectory(foreign / "runs" / "first")
    with (
        _without_rights(),
        pytest.raises(StorageError, match=r"cannot make the directory .*Permission denied: no perm"),
    ):
        run.create(now=0.0)
    assert list(foreign.iterdir()) == []


def test_a_run_that_cannot_be_written_stays_as_it_is(foreign: Path):
    run = RunDirectory(foreign / "first")
    run.create(now=0.0)
    with _without_rights():
        assert [found.name for found in list_runs(foreign)] == ["first"]
        with pytest.raises(StorageError, match=r"attempts/1: Permission denied: no permission; check the owner"):
            run.claim_attempt("holder")
    assert run.newest_attempt() == (0, "")


def test_storage_that_cannot_be_read_is_named(foreign: Path):
    RunDirectory(foreign / "runs" / "first").create(now=0.0)
    (foreign / "runs").chmod(0o700)
    with _without_rights():
        with pytest.raises(StorageError, match=r"cannot look for a run in .*first: Permission denied: no permission"):
            find_run(foreign / "runs", "first")
        with pytest.raises(StorageError, match=r"cannot list the runs in .*runs: Permission denied: no permission"):
            list_runs(foreign / "runs")


def test_storage_that_is_a_file_is_named(tmp_path: Path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(StorageError, match="a part of the path is a file; choose another place with DNCTL_STORAGE"):
        RunDirectory(tmp_path / "runs" / "first").create(now=0.0)
    with pytest.raises(StorageError, match="there is a file where a directory should be"):
        files.make_directory(tmp_path / "runs")
