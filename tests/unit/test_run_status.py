"""What is read of a run: honestly, and whatever lies there."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from orchestrator.errors import StorageError
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.lease import LEASE_DURATION_S, Lease
from orchestrator.run.progress import Progress, read_progress, write_progress
from orchestrator.run.state import State, write_state
from orchestrator.run.status import read_status
from tests import report_runs

NOW = 5000.0
# fmt: off
KEYS = [
    "run", "path", "state", "reason", "attempt", "epoch", "num_epochs", "step", "num_steps", "loss", "top1", "top5",
    "best_top1", "test_top1", "test_top5", "images_per_s", "eta_s", "world_size", "last_checkpoint", "recoveries",
    "goodput",
]
# fmt: on
PROGRESS = Progress(
    step=12,
    num_steps=30,
    epoch=1,
    num_epochs=3,
    steps_per_epoch=10,
    world_size=2,
    loss=2.5,
    top1=40.0,
    top5=80.0,
    best_top1=41.0,
    train_top1=38.0,
    images_per_s=100.0,
    eta_s=60.0,
    last_checkpoint="step-00000010.1",
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.create(now=4000.0)
    return run


def _record(run: RunDirectory, state: State, *, attempt: int = 1) -> None:
    write_state(run.state, replace(run.read_state(), state=state, reason="training", attempt=attempt))


def _renew(run: RunDirectory, *, renewed_at: float) -> None:
    lease = Lease(
        holder="a",
        host="host",
        process_id=1,
        attempt=1,
        renewed_at=renewed_at,
        expires_at=renewed_at + LEASE_DURATION_S,
    )
    files.write_json(run.lease, asdict(lease))


ACTIVE = [state for state in State if state.is_active]
INACTIVE = [state for state in State if not state.is_active and state is not State.LOST]


@pytest.mark.parametrize("state", ACTIVE)
def test_an_active_run_whose_lease_was_renewed_is_what_it_says(run: RunDirectory, state: State):
    _record(run, state)
    _renew(run, renewed_at=NOW - 5)
    status = read_status(run, now=NOW)
    assert (status.state, status.reason) == (state, "training")


@pytest.mark.parametrize("state", ACTIVE)
def test_an_active_run_whose_lease_is_stale_is_lost(run: RunDirectory, state: State):
    _record(run, state)
    _renew(run, renewed_at=NOW - 300)
    status = read_status(run, now=NOW)
    assert status.state is State.LOST
    assert status.reason == f"its driver has not been heard of for 300 s; it was {state}: training"
    assert run.read_state().state is state, "LOST is a reading, not a write"


def test_an_active_run_without_a_lease_or_with_one_from_the_future_is_lost(run: RunDirectory):
    _record(run, State.RUNNING)
    assert read_status(run, now=NOW).reason == "its driver holds no lease; it was RUNNING: training"
    _renew(run, renewed_at=NOW + 3600)
    status = read_status(run, now=NOW)
    assert status.state is State.LOST
    assert status.reason.startswith("its driver's lease is 3600 s ahead of the clock of this machine")


@pytest.mark.parametrize("state", INACTIVE)
def test_a_run_that_nobody_needs_to_drive_is_never_lost(run: RunDirectory, state: State):
    _record(run, state)
    assert read_status(run, now=NOW).state is state
    _renew(run, renewed_at=run.read_state().updated_at - 300)
    assert read_status(run, now=NOW).state is state


def test_a_driver_that_gave_its_lease_back_without_a_word_leaves_a_lost_run(run: RunDirectory):
    _record(run, State.RUNNING)
    files.write_json(
        run.lease, asdict(Lease(holder="a", host="host", process_id=1, attempt=1, renewed_at=0.0, expires_at=0.0))
    )
    status = read_status(run, now=NOW)
    assert (status.state, status.reason) == (
        State.LOST,
        "its driver ended without saying how; it was RUNNING: training",
    )


def test_a_driver_that_waits_for_room_and_dies_leaves_a_lost_run(run: RunDirectory):
    _record(run, State.PENDING)
    _renew(run, renewed_at=NOW - 5)
    assert read_status(run, now=NOW).state is State.PENDING
    _renew(run, renewed_at=NOW - 300)
    assert read_status(run, now=NOW).state is State.LOST


def test_the_json_keys_are_there_before_anything_is_known(run: RunDirectory):
    document = read_status(run, now=NOW).to_json()
    assert set(KEYS) <= document.keys()
    known = {key: document[key] for key in KEYS if document[key] is not None}
    assert known == {
        "run": "run",
        "path": str(run.path),
        "state": "PENDING",
        "reason": "created",
        "attempt": 0,
        "recoveries": 0,
    }


def test_the_json_has_the_newest_figures(run: RunDirectory):
    _record(run, State.RUNNING, attempt=3)
    _renew(run, renewed_at=NOW)
    for number in (1, 2, 3):
        write_progress(run.claim_attempt(f"holder{number}").progress, replace(PROGRESS, step=10 + number))
    document = json.loads(json.dumps(read_status(run, now=NOW).to_json()))
    assert list(document)[: len(KEYS) + 1] == [*KEYS[:10], "train_top1", *KEYS[10:]]
    assert document["step"] == 13
    assert document["recoveries"] == 2
    assert [document[key] for key in ("epoch", "num_epochs", "num_steps", "loss", "top1", "top5", "best_top1")] == [
        1, 3, 30, 2.5, 40.0, 80.0, 41.0,
    ]  # fmt: skip
    assert document["eta_s"] == 60.0


def test_an_attempt_that_has_no_figures_yet_shows_those_of_the_one_before(run: RunDirectory):
    write_progress(run.claim_attempt("first").progress, PROGRESS)
    run.claim_attempt("second")
    assert read_status(run, now=NOW).progress == PROGRESS


def test_an_attempt_that_saved_nothing_yet_has_the_checkpoint_it_began_from(run: RunDirectory):
    write_progress(run.claim_attempt("first").progress, replace(PROGRESS, last_checkpoint_at=4900.0))
    resumed = replace(PROGRESS, first_step=10, last_checkpoint=None)
    progress = run.claim_attempt("second").progress
    write_progress(progress, resumed)
    status = read_status(run, now=NOW)
    assert (status.to_json()["last_checkpoint"], status.checkpoint_age_s) == ("step-00000010.1", 100.0)
    write_progress(progress, replace(resumed, first_step=5))
    assert read_status(run, now=NOW).to_json()["last_checkpoint"] is None, "that one was passed over"


def test_nobody_promises_when_a_run_ends_that_does_not_run(run: RunDirectory):
    write_progress(run.claim_attempt("first").progress, PROGRESS)
    _record(run, State.STOPPED)
    assert read_status(run, now=NOW).to_json()["eta_s"] is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format_version": 1, "step": 3}', b'{"format_version": 9}'])
def test_damaged_figures_read_as_none(run: RunDirectory, content: bytes):
    progress = run.claim_attempt("first").progress
    progress.write_bytes(content)
    run.lease.write_bytes(content)
    assert read_progress(progress) is None
    assert read_status(run, now=NOW).progress is None


def test_figures_of_a_newer_dnctl_are_read_as_far_as_they_are_known(tmp_path: Path):
    files.write_json(tmp_path / "progress.json", {**asdict(PROGRESS), "novelty": 1})
    assert read_progress(tmp_path / "progress.json") == PROGRESS


def test_a_damaged_state_is_an_error_that_names_it(run: RunDirectory):
    run.state.write_bytes(b"{")
    with pytest.raises(StorageError, match=r"state.json is damaged"):
        read_status(run, now=NOW)


def test_workers_wanted_and_limits_are_the_plans(tmp_path: Path):
    run = report_runs.make_run(tmp_path, "run", "demo", "limits.hours=2", epochs_done=1)
    status = read_status(run, now=NOW)
    assert (status.world_size_wanted, status.limits.max_hours) == (1, 2)
