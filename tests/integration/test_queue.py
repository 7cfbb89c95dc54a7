"""Short jobs beside runs, runs with limits and runs after runs, on a real Ray cluster of this machine."""

import json
from pathlib import Path

import pytest

from orchestrator.run.checkpoints import list_checkpoints
from tests.integration.test_launch import Dnctl, cluster_directory, dnctl, launch_arguments, run_directory, status

__all__ = ["cluster_directory", "dnctl"]

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]


def test_a_limit_stops_a_run_and_the_next_one_waits_for_it(dnctl: Dnctl, small_images: Path) -> None:
    endless = ["train.epochs=2000", "limits.hours=0.001", "eval.every_epochs=2000", "checkpoint.every_epochs=2000"]
    assert dnctl(*launch_arguments(small_images, "first", 1, endless), "-d").returncode == 0
    assert dnctl(*launch_arguments(small_images, "second", 1, []), "-d", "--after", "first").returncode == 0

    assert dnctl("wait", "first").returncode == 6
    first = status(dnctl, "first")
    assert first["state"] == "STOPPED"
    assert first["reason"].startswith("stopped with a checkpoint: limits.hours is reached: ")
    assert first["hours"] >= first["max_hours"] == 0.001
    newest = list_checkpoints(run_directory("first").checkpoints)[-1]
    assert newest.step == first["step"]

    assert dnctl("wait", "second").returncode == 1
    second = status(dnctl, "second")
    assert "it was to begin after first, which STOPPED: stopped with a checkpoint: limits.hours" in second["reason"]
    assert second["step"] is None

    assert dnctl("resume", "first").returncode == 6
    first = status(dnctl, "first")
    assert first["step"] == newest.step
    assert first["reason"].startswith("stopped before it began: limits.hours is reached")

    epochs = newest.step // 3 + 20
    raised = ["--set", "limits.hours=1", "--set", f"train.epochs={epochs}"]
    assert dnctl("resume", "first", *raised, "-d").returncode == 0
    assert dnctl("resume", "second", "--after", "first", "-d").returncode == 0
    waiting = status(dnctl, "second")
    assert (waiting["state"], waiting["reason"]) == ("PENDING", "waits for first to end")
    assert dnctl("wait", "second").returncode == 0
    assert status(dnctl, "first")["state"] == "SUCCEEDED"
    assert status(dnctl, "second")["ledger"]["queue"] > 0


def test_an_evaluation_on_the_cluster_counts_as_the_run_did_and_nodes_are_looked_at(
    dnctl: Dnctl, small_images: Path
) -> None:
    assert dnctl(*launch_arguments(small_images, "plain", 2, ["train.epochs=2"])).returncode == 0
    answer = dnctl("eval", "plain", "--cluster", "local", "--json")
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert (found["num_images"], found["device"]) == (11, "cpu")
    assert found["top1"] == status(dnctl, "plain")["top1"]

    missing = dnctl("eval", "plain", "--cluster", "local", "--data", str(small_images / "train"))
    assert missing.returncode == 2, missing.stderr
    assert "Traceback" not in missing.stderr

    looked = dnctl("doctor", "--cluster", "local", "--json")
    assert looked.returncode == 0, looked.stderr
    verdicts = {finding["subject"]: finding["verdict"] for finding in json.loads(looked.stdout)}
    assert verdicts == {"node": "ok", "network": "ok", "clocks": "ok", "storage": "ok"}
