"""A run on a real Slurm with two nodes: through the signal before the time limit and a requeue, to its end."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from orchestrator.run.directory import RunDirectory
from tests.slurm import slurm
from tests.training import SMALL

pytestmark = [pytest.mark.slurm, pytest.mark.ray, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]

SHIPPED = Path(__file__).parents[2] / "cluster"


def own_profile(folder: Path) -> Path:
    """The shipped profile, copied and edited as its header says: one core a node, no GPUs."""
    script = (SHIPPED / "slurm" / "run.sbatch").read_text()
    script = re.sub(r"--cpus-per-task=\d+", "--cpus-per-task=1", script)
    script = re.sub(r"#SBATCH --gpus-per-node=\d+\n", "", script)
    script = re.sub(r"--time=\S+", "--time=30", script)
    (folder / "run.sbatch").write_text(script)
    path = folder / "mine.yaml"
    path.write_text(f"kind: slurm\nscript: run.sbatch\nstorage: {os.environ['DNCTL_STORAGE']}\n")
    return path


def test_a_run_is_signalled_requeued_and_trained_to_its_end(
    tmp_path: Path, small_images: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    run = RunDirectory(Path(os.environ["DNCTL_STORAGE"]) / "queued")
    profile = str(own_profile(tmp_path))
    with tempfile.TemporaryDirectory(prefix="sl") as folder, slurm(Path(folder)) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        try:
            _launch(small_images, profile, "queued", epochs=80)
            (entry,) = json.loads(_dnctl("cluster", "status", profile, "--json"))["runs"]
            _launch(small_images, profile, "next", "--after", "queued", epochs=3)
            assert "Dependency" in _dnctl("cluster", "status", profile)
            _wait(run, lambda: _step(run, 1) >= 3)
            # What Slurm does at --signal=B:USR1@300: to the batch script, not to the steps.
            _call("scancel", "--batch", "--signal=USR1", entry["job"])
            _wait(run, lambda: _status()["state"] == "PENDING")
            assert "waiting for the next turn" in _status()["reason"]
            _wait(run, lambda: "BeginTime" in _dnctl("cluster", "status", profile, "--json") or _step(run, 2) > 0)
            _wait(run, lambda: _is_quiet(entry["job"]))
            _call("scontrol", "update", f"JobId={entry['job']}", "StartTime=now")  # Slurm lets it wait two minutes
            _wait(run, lambda: _status()["state"] == "SUCCEEDED")
            document = _status()
            assert (document["attempt"], document["step"]) == (2, document["num_steps"])
            assert document["world_size"] == 2
            assert _status("next")["state"] == "PENDING"  # through the signal and the requeue
            _wait(run, lambda: _status("next")["state"] == "SUCCEEDED")
            _wait(run, lambda: not json.loads(_dnctl("cluster", "status", profile, "--json"))["runs"])
        finally:
            _dnctl("cluster", "down", profile)
    resumed = [event for event in _events(run) if event["event"] == "training_resumes"]
    assert [event["world_size"] for event in resumed] == [2]
    assert resumed[0]["step"] >= 3
    assert not list(Path("/tmp").glob(f"ray-{entry['job']}*"))


def _is_quiet(job: str) -> bool:
    """Whether nothing runs of a job's last turn: no daemon of Slurm's for one of its steps."""
    listing = subprocess.run(["ps", "-eo", "args="], check=True, capture_output=True, text=True).stdout
    return f"slurmstepd: [{job}." not in listing


def _launch(images: Path, profile: str, name: str, *options: str, epochs: int) -> None:
    values = [f"data.root={images}", "cluster.workers=2", *SMALL]
    values += [f"train.epochs={epochs}", "train.schedule.milestones=[3/4]", f"eval.every_epochs={epochs}"]
    overrides = [argument for value in values for argument in ("--set", value)]
    _dnctl("launch", "demo", "--name", name, "--cluster", profile, "--detach", *options, *overrides)


def _dnctl(*arguments: str) -> str:
    return _call(sys.executable, "-m", "orchestrator", *arguments)


def _call(*command: str) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, f"{command}: {answer.stdout}{answer.stderr}"
    return answer.stdout


def _status(name: str = "queued") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_dnctl("status", name, "--json"))
    return document


def _step(run: RunDirectory, attempt: int) -> int:
    path = run.attempt(attempt).progress
    return int(json.loads(path.read_text())["step"]) if path.exists() else 0


def _events(run: RunDirectory) -> list[dict[str, Any]]:
    paths = sorted(run.attempt(2).path.glob("events-*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def _wait(run: RunDirectory, condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 150
    while not condition():
        log = run.path / "slurm.log"
        assert monotonic() < deadline, log.read_text() if log.exists() else "the job hasn't begun"
        assert _status()["state"] != "FAILED", log.read_text()
        sleep(0.5)
