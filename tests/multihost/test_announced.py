"""Hosts whose end is announced, by a cloud, by SIGTERM, by a person: the run leaves them, and no step is done twice."""

import json
import signal
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic, sleep, time
from typing import Any

import pytest

from orchestrator.run.directory import RunDirectory
from orchestrator.run.segments import read_segments
from tests.multihost.conftest import SETTINGS, Bed, wait_for_step
from tests.multihost.hosts import GCS_PORT, RAY, Host
from tests.training import Trained, make_run, train_ranks

pytestmark = [
    pytest.mark.multihost,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1500),
]

EPOCHS = 120
STEPS = 3 * EPOCHS


@pytest.fixture(scope="module")
def undisturbed(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run left alone, without Ray, on one worker."""
    settings = [*(setting for setting in SETTINGS if "cpus" not in setting), f"train.epochs={EPOCHS}"]
    path = tmp_path_factory.mktemp("alone") / "run"
    return train_ranks(make_run(path, bed.images, workers=1, overrides=settings), workers=1)


def reasons_until(run: RunDirectory, *, attempt: int) -> list[str]:
    """What the run's state said until that attempt had done a step."""
    said: list[str] = []
    deadline = monotonic() + 200
    while not run.attempt(attempt).progress.exists():
        assert monotonic() < deadline, said
        reason = run.read_state().reason
        if reason not in said[-1:]:
            said.append(reason)
        sleep(0.1)
    return said


def assert_nothing_was_lost(run: RunDirectory, undisturbed: Trained) -> None:
    rows = [row for attempt in run.attempts() for row in read_segments(attempt.path, "metrics")]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1)), "every step once, in order"
    trained = Trained(run)
    assert trained.samples() == undisturbed.samples()
    assert trained.tensors_sha256() == undisturbed.tensors_sha256()


def events(run: RunDirectory, kind: str) -> list[dict[str, Any]]:
    found = [event for attempt in run.attempts() for event in read_segments(attempt.path, "events")]
    return [event for event in found if event["event"] == kind]


def seconds_to_save(run: RunDirectory, announced_at: float, *, attempt: int) -> float:
    """From a notice to the checkpoint that the attempt ended with."""
    saved = [event["time"] for event in read_segments(run.attempt(attempt).path, "events") if "step" in event]
    return max(saved) - announced_at


def test_notices_of_two_clouds_each_cost_a_worker_and_no_step(bed: Bed, undisturbed: Trained):
    on_aws, on_azure = bed.hosts.add(1, cloud="aws"), bed.hosts.add(1, cloud="azure")
    bed.hosts.kill(bed.hosts.hosts[1])  # of the two there were, so that the run is on the other and on these
    ids = {host: bed.hosts.node_id(host) for host in (on_aws, on_azure)}
    run = bed.launch("noticed", "{min: 1, max: 3}", epochs=EPOCHS)
    wait_for_step(run, 5, attempt=1)

    ends_at, announced_at = datetime.now(UTC) + timedelta(seconds=120), time()
    interruption = {"action": "terminate", "time": f"{ends_at:%Y-%m-%dT%H:%M:%SZ}"}
    announce(bed, on_aws, "instance-action", interruption)
    said = reasons_until(run, attempt=2)
    print(f"AWS: {seconds_to_save(run, announced_at, attempt=1):.1f} s from the notice to the checkpoint")
    assert any(reason.startswith("preemption announced: AWS spot interruption (terminate): node ") for reason in said)

    announced_at = time()
    eviction = {
        "EventId": "E-7",
        "EventType": "Preempt",
        "Resources": ["vm_3"],
        "EventStatus": "Scheduled",
        "NotBefore": format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True),
    }
    announce(bed, on_azure, "events", {"DocumentIncarnation": 1, "Events": [eviction]})
    wait_for_step(run, 5, attempt=3)
    print(f"Azure: {seconds_to_save(run, announced_at, attempt=2):.1f} s from the notice to the checkpoint")
    assert (bed.hosts.notices(on_azure) / "acknowledged").read_text() == "E-7"

    status = bed.wait(run)
    assert (status["state"], status["attempt"], status["world_size"]) == ("SUCCEEDED", 3, 1), status["reason"]
    assert_nothing_was_lost(run, undisturbed)
    by_aws, by_azure = [event["departures"][0] for event in events(run, "pause_requested")]
    assert (by_aws["node"], by_aws["address"], by_aws["cause"]) == (
        ids[on_aws],
        on_aws.address,
        "AWS spot interruption (terminate)",
    )
    assert by_aws["deadline"] == pytest.approx(ends_at.timestamp(), abs=1.1)
    assert (by_azure["node"], by_azure["cause"]) == (ids[on_azure], "Azure spot eviction")
    shown = bed.dnctl("watch", run.name, "--json").stdout
    assert "preemption announced: AWS spot interruption (terminate): node " in shown


def announce(bed: Bed, host: Host, file: str, document: dict[str, Any]) -> None:
    folder = bed.hosts.notices(host)
    (folder / "new").write_text(json.dumps(document))
    (folder / "new").rename(folder / file)
    bed.hosts.gone.add(host.namespace)


def test_sigterm_and_a_person_each_cost_a_worker_and_no_step(bed: Bed, undisturbed: Trained):
    bed.hosts.workers(2)
    pod, ray = start_as_in_a_pod(bed, grace_s=110)
    doomed = bed.hosts.workers(3)[0]
    doomed_id = bed.hosts.node_id(doomed)
    run = bed.launch("sent-away", "{min: 1, max: 3}", epochs=EPOCHS)
    wait_for_step(run, 5, attempt=1)

    announced_at = time()
    ray.send_signal(signal.SIGTERM)
    bed.hosts.gone.add(pod.namespace)
    wait_for_step(run, 5, attempt=2)
    print(f"SIGTERM: {seconds_to_save(run, announced_at, attempt=1):.1f} s from the signal to the checkpoint")
    ray.wait(30)  # long before its time is up: nothing was left on it

    unknown = bed.dnctl("cluster", "drain", "10.9.9.9")
    assert (unknown.returncode, "has no node '10.9.9.9'" in unknown.stderr) == (3, True)
    assert doomed.address in unknown.stderr
    head = bed.dnctl("cluster", "drain", bed.hosts.head.address)
    assert (head.returncode, "the head, can't be sent away" in head.stderr) == (2, True)
    drained = bed.dnctl("cluster", "drain", doomed.address, "--deadline", "90", "--json")
    assert (drained.returncode, drained.stderr) == (0, "")
    (node,) = json.loads(drained.stdout)["nodes"]
    assert node["node"] == doomed_id
    bed.hosts.gone.add(doomed.namespace)
    wait_for_step(run, 5, attempt=3)

    status = bed.wait(run)
    assert (status["state"], status["attempt"], status["world_size"]) == ("SUCCEEDED", 3, 1), status["reason"]
    assert_nothing_was_lost(run, undisturbed)
    by_signal, by_person = events(run, "pause_requested")
    assert by_signal["reason"].startswith("preemption announced: node ")
    assert by_signal["departures"][0]["address"] == pod.address
    assert "preemption announced: dnctl cluster drain: node " in by_person["reason"]


def start_as_in_a_pod(bed: Bed, *, grace_s: int) -> tuple[Host, Any]:
    """A host on which Ray is the process that gets the signal, with the time that the profile gives it."""
    host = bed.hosts.add_empty()
    ray = host.start(
        *(*RAY, "start", "--block", "--address", f"{bed.hosts.head.address}:{GCS_PORT}", "--num-cpus", "1"),
        *("--node-ip-address", host.address, "--object-store-memory", "100000000"),
        environment={**bed.hosts.environment, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(grace_s)},
    )
    deadline = monotonic() + 90
    while not any(node["node_ip"] == host.address for node in bed.hosts.nodes()):
        assert monotonic() < deadline
        sleep(1)
    return host, ray
