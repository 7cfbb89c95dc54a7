"""Hosts are looked at before a run: what they share, and the one that doesn't is named before anything is trained."""

import json

import pytest

from orchestrator.run.segments import read_segments
from tests.multihost.conftest import Bed

pytestmark = [pytest.mark.multihost, pytest.mark.ray, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]

NO_MILESTONE = ["train.schedule.milestones=[]"]


def _doctor(bed: Bed, *, code: int) -> dict[str, tuple[str, str]]:
    answer = bed.dnctl("doctor", "--cluster", bed.hosts.dashboard, "--json")
    assert answer.returncode == code, answer.stderr
    return {finding["subject"]: (finding["verdict"], finding["found"]) for finding in json.loads(answer.stdout)}


def test_hosts_that_share_storage_are_told_from_one_that_does_not(bed: Bed):
    bed.storage.mkdir()
    found = _doctor(bed, code=0)
    assert found["node"][1].endswith("no GPU, over eth0")
    assert found["nodes"] == ("note", "1 of 3 were left out: busy, or nothing to compute with")
    verdict, said = found["gloo"]
    assert (verdict, said[:33]) == ("note", "a sum of 4.0 MiB over 2 nodes in ")
    assert found["storage"] == ("ok", f"{bed.storage}: seen and written by all of them")

    run = bed.launch("checked", "2", epochs=1, settings=NO_MILESTONE)
    assert bed.wait(run)["state"] == "SUCCEEDED"
    (event,) = [event for event in read_segments(run.attempt(1).path, "events") if event["event"] == "workers_checked"]
    assert (event["backend"], event["interface"]) == ("gloo", "eth0")

    bed.hosts.start_node(bed.hosts.add_empty(), 1, hidden=bed.storage)
    verdict, said = _doctor(bed, code=2)["nodes"]
    assert verdict == "fault"
    assert said.startswith(f"the nodes don't share {bed.storage} (worker ")

    run = bed.launch("unshared", "3", epochs=1, settings=NO_MILESTONE)
    status = bed.wait(run)
    assert (status["state"], status["exit_code"], status["step"]) == ("FAILED", 7, None)
    assert "share" in status["reason"]
    assert "DNCTL_STORAGE" in status["reason"]
