"""Room that Ray keeps for workers of an attempt whose controller or driver has died is free for the next attempt."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.engine.trainer import newest_reservation
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory

PROGRAM = """
import json
import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from orchestrator.engine import nodes

ray.init(num_cpus=2, log_to_driver=False)
coordinator = get_or_create_autoscaling_coordinator()
for name in ("dead", "next"):
    request = coordinator.request_resources.remote(requester_id=name, resources=[{"CPU": 1}] * 2, expire_after_s=600)
    ray.get(request)
for gone in (None, "dead", "dead"):
    nodes.count_anew(gone=gone)
    print(json.dumps(list(ray.get(coordinator.get_reserved_resources.remote("next")).values())))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_room_that_a_dead_attempt_holds_goes_to_the_next_one():
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert [json.loads(line) for line in answer.stdout.splitlines()] == [[], [{"CPU": 2}], [{"CPU": 2}]]


def test_the_newest_reservation_that_can_be_read_is_given_back(tmp_path: Path):
    run = RunDirectory(tmp_path / "run")
    run.create(now=0.0)
    assert newest_reservation(run) is None
    attempts = [run.claim_attempt("holder") for _ in range(4)]
    for attempt in attempts[:3]:
        files.write_json(attempt.reservation, {"name": f"train-{attempt.number}"})
    assert newest_reservation(run) == "train-3"
    content = attempts[2].reservation.read_bytes()
    attempts[2].reservation.write_bytes(content.replace(b"train-3", b"train-9"))
    assert newest_reservation(run) == "train-2"
