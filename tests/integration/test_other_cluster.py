"""Runs on a cluster that somebody else started: reached by address and token, the code shipped from here."""

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from orchestrator.run.directory import RunDirectory
from tests.foreign_head import ForeignHead, foreign_head
from tests.training import SMALL

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

Dnctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def head() -> Iterator[ForeignHead]:
    with tempfile.TemporaryDirectory(prefix="dh") as folder, foreign_head(Path(folder)) as started:
        yield started


@pytest.fixture
def profile(head: ForeignHead, tmp_path: Path) -> Path:
    path = tmp_path / "theirs.yaml"
    storage = os.environ["DNCTL_STORAGE"]
    path.write_text(f"kind: address\naddress: {head.address}\ntoken: {head.token_path}\nstorage: {storage}\n")
    return path


@pytest.fixture
def dnctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dnctl:
    monkeypatch.setenv("HOME", str(tmp_path))  # no token of the person's own

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "orchestrator", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    return run


def launch(dnctl: Dnctl, images: Path, name: str, cluster: str, *settings: str) -> subprocess.CompletedProcess[str]:
    values = [f"data.root={images}", "cluster.workers=2", *SMALL, *settings]
    overrides = [argument for value in values for argument in ("--set", value)]
    return dnctl("launch", "demo", "--name", name, "--cluster", cluster, "--detach", *overrides)


@pytest.mark.long
def test_a_run_is_launched_seen_stopped_and_resumed_to_its_end(
    dnctl: Dnctl, profile: Path, head: ForeignHead, small_images: Path
):
    run = RunDirectory(Path(os.environ["DNCTL_STORAGE"]) / "there")
    steps = ["train.epochs=20", "train.schedule.milestones=[15]", "eval.every_epochs=20"]
    started = launch(dnctl, small_images, "there", str(profile), *steps)
    assert (started.returncode, started.stderr) == (0, "")
    wait_for(lambda: run.attempt(1).progress.exists() and json.loads(run.attempt(1).progress.read_text())["step"] >= 2)
    state = json.loads(dnctl("cluster", "status", str(profile), "--json").stdout)
    assert (state["up"], state["address"], state["runs"]) == (True, head.address, ["there"])
    assert [node["is_head"] for node in state["nodes"]] == [True]
    assert json.loads(dnctl("status", "there", "--json").stdout)["state"] == "RUNNING"
    assert dnctl("stop", "there").returncode == 0
    wait_for(lambda: json.loads(dnctl("status", "there", "--json").stdout)["state"] == "STOPPED")
    finished = dnctl("resume", "there", "--json")  # where it was: nothing else is named
    assert finished.returncode == 0, finished.stderr
    document = json.loads(finished.stdout)
    assert (document["state"], document["attempt"], document["step"]) == ("SUCCEEDED", 2, document["num_steps"])
    assert "[Gloo]" not in finished.stderr  # what the library says of its connections


def test_a_run_that_has_no_place_waits_and_says_for_what(
    dnctl: Dnctl, head: ForeignHead, profile: Path, small_images: Path
):
    busy = {"entrypoint": "sleep 200", "entrypoint_num_cpus": 2, "submission_id": "busy"}
    post(head, "/api/jobs/", busy)
    started = launch(dnctl, small_images, "large", str(profile), "cluster.cpus_per_worker=1")
    assert started.returncode == 0, started.stderr
    try:
        entry = {"run": "large", "wants": "2 × (1 CPU)", "why": "0 of 2 CPUs are free"}
        wait_for(lambda: waiting(dnctl, profile) == [entry])
        assert "0 of 2 CPUs are free" in re.sub(r"\s+", " ", dnctl("cluster", "status", str(profile)).stdout)
    finally:
        post(head, "/api/jobs/busy/stop", {})
        assert dnctl("stop", "large", "--now").returncode == 0


def post(head: ForeignHead, path: str, document: dict[str, object]) -> None:
    headers = {"Authorization": f"Bearer {head.token_path.read_text()}", "Content-Type": "application/json"}
    request = urllib.request.Request(head.address + path, json.dumps(document).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200


def waiting(dnctl: Dnctl, profile: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(dnctl("cluster", "status", str(profile), "--json").stdout)["waiting"]
    return found


def test_without_the_token_or_with_another_nothing_is_given(
    dnctl: Dnctl, head: ForeignHead, tmp_path: Path, small_images: Path
):
    none = dnctl("cluster", "status", head.address)
    assert (none.returncode, "wants its token" in none.stderr) == (4, True)
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    path = tmp_path / "wrong.yaml"
    path.write_text(f"kind: address\naddress: {head.address}\ntoken: {wrong}\n")
    refused = launch(dnctl, small_images, "refused", str(path))
    assert refused.returncode == 4
    assert f"refuses the token of {wrong}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "0" * 64 not in refused.stderr + refused.stdout


def test_a_plan_for_a_cluster_that_is_up_is_for_what_it_has(dnctl: Dnctl, profile: Path, small_images: Path):
    values = [f"data.root={small_images}", "cluster.workers=auto", *SMALL]
    overrides = [argument for value in values for argument in ("--set", value)]
    plan = json.loads(dnctl("plan", "demo", "--cluster", str(profile), "--json", *overrides).stdout)
    assert plan["placement"]["world_size"] == 2


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 120
    while not condition():
        assert monotonic() < deadline
        sleep(0.3)
