"""The real command line on a real Ray cluster of this machine: launch, kill, resume, stop, refuse."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from orchestrator.engine import local_cluster
from orchestrator.run.directory import RunDirectory
from orchestrator.run.lease import read_lease
from orchestrator.run.state import State, write_state
from tests.images import write_folder
from tests.training import SMALL, Trained, make_run, train_ranks

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

LONG = (
    "train.epochs=20",
    "train.batch_norm_groups=3",
    "train.schedule.milestones=[15]",
    "checkpoint.every_minutes=0.0001",
    "model.drop_rate=0.2",
)
"""60 steps, every third a short batch, a checkpoint after each."""


@pytest.fixture(scope="module")
def cluster_directory() -> Iterator[Path]:
    """A place for a local cluster of these tests alone; the cluster is ended, and nothing of it may be left."""
    with tempfile.TemporaryDirectory(prefix="dt") as directory:
        os.environ["DNCTL_CLUSTER_DIR"] = directory
        try:
            yield Path(directory)
        finally:
            cluster = local_cluster.find()
            subprocess.run([sys.executable, "-m", "orchestrator", "cluster", "down"], check=True, timeout=60)
            del os.environ["DNCTL_CLUSTER_DIR"]
        if cluster is not None:
            listing = subprocess.run(["ps", "-eo", "sid=,stat="], capture_output=True, text=True, check=True)
            processes = [line.split() for line in listing.stdout.splitlines()]
            assert [
                stat for session, stat in processes if session == str(cluster.keeper_process_id) and stat[0] != "Z"
            ] == []


Dnctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def dnctl(cluster_directory: Path) -> Dnctl:
    """Runs the command line as a person would; returns what it printed and its exit code."""

    def run(*arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "orchestrator", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)

    return run


def launch_arguments(images: Path, name: str, workers: int, settings: Sequence[str]) -> list[str]:
    values = [f"data.root={images}", f"cluster.workers={workers}", *SMALL, *settings]
    return ["launch", "demo", "--name", name, *(argument for value in values for argument in ("--set", value))]


def run_directory(name: str) -> RunDirectory:
    return RunDirectory(Path(os.environ["DNCTL_STORAGE"]) / name)


def wait_for_step(run: RunDirectory, step: int, *, attempt: int) -> None:
    """Wait until that attempt has done that many steps."""
    deadline = monotonic() + 240
    while monotonic() < deadline:
        progress = run.attempt(attempt).progress
        if progress.exists() and json.loads(progress.read_text())["step"] >= step:
            return
        sleep(0.05)
    raise AssertionError(f"attempt {attempt} did not reach step {step}")


def worker_process(run: RunDirectory, *, attempt: int, rank: int) -> int:
    match = re.search(r"process (\d+)", run.attempt(attempt).rank_log(rank).read_text())
    assert match is not None
    return int(match[1])


def kill_driver_and_workers(run: RunDirectory, *, attempt: int, workers: int) -> None:
    """As when a machine goes down, but for Ray's own processes."""
    lease = read_lease(run.lease)
    assert lease is not None
    for process in (lease.process_id, *(worker_process(run, attempt=attempt, rank=rank) for rank in range(workers))):
        _kill(process)


def status(dnctl: Dnctl, name: str) -> dict[str, Any]:
    answer = dnctl("status", name, "--json")
    assert answer.returncode == 0, answer.stderr
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


@pytest.fixture(scope="module")
def undisturbed(small_images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes that the long run ends with when it is left alone, without Ray, on one worker."""
    run = make_run(tmp_path_factory.mktemp("alone") / "run", small_images, workers=1, overrides=LONG)
    return train_ranks(run, workers=1).tensors_sha256()


def test_launch_trains_evaluates_and_reports(dnctl: Dnctl, small_images: Path) -> None:
    answer = dnctl(*launch_arguments(small_images, "plain", 2, []), "--json")
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert document["state"] == "SUCCEEDED"
    assert (document["step"], document["num_steps"], document["epoch"], document["world_size"]) == (9, 9, 3, 2)
    run = run_directory("plain")
    assert sorted(path.name for path in run.attempt(1).logs.iterdir()) == [
        "driver.log",
        "rank-00000.log",
        "rank-00001.log",
    ]
    evaluated = json.loads(dnctl("eval", "plain", "--json").stdout)
    assert (evaluated["num_images"], evaluated["crops"]) == (11, 1)
    assert evaluated["top1"] == pytest.approx(document["top1"])
    assert [row["run"] for row in json.loads(dnctl("list", "--json").stdout)] == ["plain"]
    again = dnctl(*launch_arguments(small_images, "plain", 2, []))
    assert (again.returncode, "is finished" in again.stderr) == (2, True)


@pytest.mark.long
def test_a_run_that_loses_a_worker_and_then_everything_resumes_to_the_same_bits(
    dnctl: Dnctl, small_images: Path, undisturbed: dict[str, str]
) -> None:
    run = run_directory("killed")
    assert dnctl(*launch_arguments(small_images, "killed", 2, LONG), "--detach").returncode == 0
    wait_for_step(run, 7, attempt=1)
    _kill(worker_process(run, attempt=1, rank=1))  # Ray starts the workers again
    wait_for_step(run, 24, attempt=2)
    kill_driver_and_workers(run, attempt=2, workers=2)
    answer = dnctl("wait", "killed")
    assert (answer.returncode, status(dnctl, "killed")["state"]) == (4, "LOST")
    answer = dnctl("resume", "killed")
    assert answer.returncode == 0, answer.stderr
    assert Trained(run).tensors_sha256() == undisturbed
    assert status(dnctl, "killed")["recoveries"] == 2


def test_a_stopped_run_goes_on_with_other_numbers_of_workers_to_the_same_bits(
    dnctl: Dnctl, small_images: Path, undisturbed: dict[str, str]
) -> None:
    run = run_directory("stopped")
    assert dnctl(*launch_arguments(small_images, "stopped", 2, LONG), "--detach").returncode == 0
    wait_for_step(run, 5, attempt=1)
    assert dnctl("stop", "stopped").returncode == 0
    assert dnctl("stop", "stopped").returncode == 0
    assert dnctl("wait", "stopped").returncode == 6
    document = status(dnctl, "stopped")
    assert (document["state"], document["exit_code"]) == ("STOPPED", 6)
    assert dnctl("resume", "stopped", "--set", "cluster.workers=3", "--detach").returncode == 0
    wait_for_step(run, 30, attempt=2)
    assert dnctl("stop", "stopped", "--now").returncode == 0
    assert dnctl("wait", "stopped").returncode == 6
    assert status(dnctl, "stopped")["reason"] == "stopped at once, without a checkpoint"
    answer = dnctl("resume", "stopped", "--set", "cluster.workers=1")
    assert answer.returncode == 0, answer.stderr
    assert Trained(run).tensors_sha256() == undisturbed


def test_a_run_that_diverges_fails_with_exit_code_5(dnctl: Dnctl, small_images: Path) -> None:
    answer = dnctl(*launch_arguments(small_images, "diverged", 1, ["train.optimizer.lr=1e30"]))
    assert answer.returncode == 5
    assert "diverged" in answer.stdout
    assert "Traceback" not in answer.stderr + answer.stdout


def test_an_image_damaged_after_indexing_fails_the_run_by_name(dnctl: Dnctl, tmp_path: Path) -> None:
    images = write_folder(tmp_path / "images", num_train=20, num_val=6, num_classes=2)
    assert dnctl("data", "index", str(images)).returncode == 0
    damaged = images / "train" / "class0" / "0004.jpg"
    content, times = damaged.read_bytes(), damaged.stat()
    damaged.write_bytes(content[:100] + bytes(len(content) - 100))
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
    answer = dnctl(*launch_arguments(images, "damaged", 2, []))
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert "0004.jpg" in answer.stdout
    assert "Traceback" not in answer.stderr + answer.stdout


def test_going_on_with_other_numerics_is_refused(dnctl: Dnctl, small_images: Path) -> None:
    unfinished = run_directory("other")
    make_run(unfinished.path, small_images, workers=1)
    other = dnctl(*launch_arguments(small_images, "other", 1, ["train.optimizer.lr=0.2"]))
    assert (other.returncode, "optimizer.lr: now 0.2, the run began with 0.1" in other.stderr) == (2, True)


def test_a_cluster_that_does_not_answer_is_named(dnctl: Dnctl, small_images: Path) -> None:
    arguments = launch_arguments(small_images, "nowhere", 1, [])
    answer = dnctl(*arguments, "--cluster", "http://127.0.0.1:9", timeout_s=120)
    assert answer.returncode == 4
    assert "http://127.0.0.1:9" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not run_directory("nowhere").path.exists(), "a run that never was"
    stopped = make_run(run_directory("kept").path, small_images, workers=1)
    write_state(stopped.state, replace(stopped.read_state(), state=State.STOPPED, reason="on request", finished_at=1.0))
    before = stopped.state.read_bytes()
    answer = dnctl("resume", "kept", "--cluster", "http://127.0.0.1:9", timeout_s=120)
    assert (answer.returncode, stopped.state.read_bytes()) == (4, before)


def _kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
