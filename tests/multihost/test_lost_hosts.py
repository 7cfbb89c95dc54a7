"""Hosts that go, announced or not, and hosts that come: the run arrives at the bits of the undisturbed one."""

import pytest

from orchestrator.run.directory import RunDirectory
from orchestrator.run.segments import read_segments
from tests.multihost.conftest import SETTINGS, Bed, wait_for_step
from tests.training import Trained, make_run, train_ranks

pytestmark = [pytest.mark.multihost, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

EPOCHS = 40


@pytest.fixture(scope="module")
def undisturbed(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run left alone, without Ray, on one worker."""
    settings = [*(setting for setting in SETTINGS if "cpus" not in setting), f"train.epochs={EPOCHS}"]
    path = tmp_path_factory.mktemp("alone") / "run"
    return train_ranks(make_run(path, bed.images, workers=1, overrides=settings), workers=1)


def steps_by_attempt(run: RunDirectory) -> list[list[int]]:
    """The steps that each attempt did, by its metrics."""
    return [[row["step"] for row in read_segments(attempt.path, "metrics")] for attempt in run.attempts()]


@pytest.mark.long
def test_an_announced_preemption_and_a_new_host_cost_no_step(bed: Bed, undisturbed: Trained):
    doomed, _ = bed.hosts.workers(2)
    run = bed.launch("preempted", "{min: 1, max: 2}", epochs=EPOCHS)
    wait_for_step(run, 20, attempt=1)
    bed.hosts.drain(doomed, deadline_s=120)
    wait_for_step(run, 50, attempt=2)
    bed.hosts.add(1)
    status = bed.wait(run)
    assert (status["state"], status["attempt"], status["world_size"]) == ("SUCCEEDED", 3, 2), status["reason"]
    done = [step for steps in steps_by_attempt(run) for step in steps]
    assert done == list(range(1, 3 * EPOCHS + 1)), "every step once, in order"
    events = [event for attempt in run.attempts() for event in read_segments(attempt.path, "events")]
    assert [event["reason"].split(":")[0] for event in events if event["event"] == "pause_requested"] == [
        "preemption announced",
        "room for 2 workers instead of 1",
    ]
    trained = Trained(run)
    assert trained.samples() == undisturbed.samples()
    assert trained.tensors_sha256() == undisturbed.tensors_sha256()


@pytest.mark.long
def test_a_host_that_dies_and_one_whose_network_is_cut_are_done_without(bed: Bed, undisturbed: Trained):
    first, second = bed.hosts.workers(2)
    run = bed.launch("bereft", "{min: 1, max: 2}", epochs=EPOCHS)
    wait_for_step(run, 20, attempt=1)
    bed.hosts.kill(first)
    wait_for_step(run, 40, attempt=2)
    bed.hosts.add(1)
    wait_for_step(run, 60, attempt=3)
    bed.hosts.unplug(second)
    status = bed.wait(run)
    assert (status["state"], status["attempt"], status["world_size"]) == ("SUCCEEDED", 4, 1), status["reason"]
    assert Trained(run).tensors_sha256() == undisturbed.tensors_sha256()
