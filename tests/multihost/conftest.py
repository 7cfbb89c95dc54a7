"""A cluster on several hosts, and runs on it by the real command line."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from orchestrator.run.directory import RunDirectory
from tests.multihost.hosts import Hosts
from tests.training import SMALL

SETTINGS = (
    *(setting for setting in SMALL if not setting.startswith("cluster.")),
    "train.batch_norm_groups=3",
    "train.schedule.milestones=[9]",
    "checkpoint.every_minutes=0.0001",
    "model.drop_rate=0.2",
    "cluster.cpus_per_worker=1",
    "cluster.resize_minutes=0",
)
"""Steps of 16 images in 3 groups, every third a short batch; a checkpoint after nearly each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """Hosts, a storage that all of them see, and the command line outside of them."""

    hosts: Hosts
    images: Path
    storage: Path

    def dnctl(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command as a person would, from a machine that reaches the head."""
        return subprocess.run(
            [sys.executable, "-m", "orchestrator", *arguments],
            env={
                **os.environ,
                **self.hosts.environment,
                "DNCTL_STORAGE": str(self.storage),
                "DNCTL_CLUSTER": self.hosts.dashboard,
            },
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def launch(self, name: str, workers: str, *, epochs: int, settings: Sequence[str] = ()) -> RunDirectory:
        """Start a run and leave it to itself."""
        of_run = (f"data.root={self.images}", f"cluster.workers={workers}", f"train.epochs={epochs}")
        values = [*SETTINGS, *of_run, *settings]
        options = [argument for value in values for argument in ("--set", value)]
        answer = self.dnctl("launch", "demo", "--name", name, "--detach", *options)
        assert answer.returncode == 0, answer.stderr
        return RunDirectory(self.storage / name)

    def status(self, run: RunDirectory) -> dict[str, Any]:
        """What `dnctl status` says."""
        answer = self.dnctl("status", run.name, "--json")
        assert answer.returncode == 0, answer.stderr
        document: dict[str, Any] = json.loads(answer.stdout)
        return document

    def wait(self, run: RunDirectory) -> dict[str, Any]:
        """The status when the run has ended."""
        self.dnctl("wait", run.name)
        return self.status(run)


def wait_for_step(run: RunDirectory, step: int, *, attempt: int, timeout_s: float = 200) -> None:
    """Wait until that attempt has done that many steps of the run."""
    deadline = monotonic() + timeout_s
    progress = run.attempt(attempt).progress
    while monotonic() < deadline:
        if progress.exists() and json.loads(progress.read_text())["step"] >= step:
            return
        sleep(0.1)
    log = run.attempt(1).logs / "driver.log"
    raise AssertionError(f"attempt {attempt} did not reach step {step}:\n{log.read_text() if log.exists() else ''}")


@contextmanager
def made_bed(folder: Path, images: Path, *, storage: Path, cpus: Sequence[int]) -> Iterator[Bed]:
    """A cluster of a host for each entry, with so many cores to compute on; the first is the head."""
    hosts = Hosts(folder=folder)
    try:
        hosts.up(cpus)
        yield Bed(hosts=hosts, images=images, storage=storage)
    finally:
        hosts.down()


@pytest.fixture(scope="module")
def bed(small_images: Path) -> Iterator[Bed]:
    """A head that computes nothing and two hosts that do, with a core each."""
    with tempfile.TemporaryDirectory(prefix="mh") as place:
        folder = Path(place)
        with made_bed(folder, small_images, storage=folder / "runs", cpus=[0, 1, 1]) as bed:
            yield bed
