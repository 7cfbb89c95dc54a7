"""Every second of a run's wall time is in one entry of the ledger, and lost steps are in none of the good ones."""

from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchestrator.run import files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.ledger import Ledger, read_ledger, time_exposed_s
from orchestrator.run.progress import Progress, write_progress
from orchestrator.run.state import State, StateRecord

SECONDS = {"data": 5.0, "compute": 30.0, "communication": 5.0, "checkpoint": 2.0, "evaluation": 8.0}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create(now=1000.0)
    return directory


def attempt(run: RunDirectory, *, claimed_at: float, submitted_at: float | None, **progress: Any) -> None:
    claimed = run.claim_attempt("test", submitted_at=submitted_at)
    owner = {"holder": "test", "submitted_at": submitted_at, "claimed_at": claimed_at}
    files.write_json(claimed.owner, owner)
    if progress:
        figures = {"num_steps": 100, "epoch": 0, "num_epochs": 1, "steps_per_epoch": 100, "world_size": 1}
        write_progress(claimed.progress, Progress(**{**figures, "seconds": SECONDS, **progress}))


def ledger_of(run: RunDirectory, *, state: State, until: float, is_finished: bool = True) -> Ledger:
    record = StateRecord(
        state=state,
        reason="",
        attempt=1,
        created_at=1000.0,
        updated_at=until,
        finished_at=until if is_finished else None,
    )
    return read_ledger(run, record, state, now=until)


def test_an_undisturbed_run_is_divided_into_what_it_did(run: RunDirectory):
    attempt(run, submitted_at=1001.0, claimed_at=1004.0, step=40, at=1070.0)
    found = ledger_of(run, state=State.SUCCEEDED, until=1071.0)
    expected = SECONDS | {"queue": 3.0, "start": 17.0, "idle": 1.0, "recomputation": 0.0}
    assert asdict(found) == expected
    assert found.wall_s == 71.0
    assert found.goodput == pytest.approx(48 / 71)


def test_steps_done_again_are_recomputation_and_the_way_back_is_starting(run: RunDirectory):
    attempt(run, submitted_at=1000.0, claimed_at=1000.0, step=40, at=1060.0)
    attempt(run, submitted_at=None, claimed_at=1075.0, step=60, first_step=30, at=1135.0)
    found = ledger_of(run, state=State.SUCCEEDED, until=1135.0)
    assert found.recomputation == pytest.approx(10.0), "10 of 40 steps, which took 40 s"
    assert found.compute == pytest.approx(30.0 * 1.75)
    assert found.start == pytest.approx(10 + 15 + 10)
    assert found.wall_s == pytest.approx(135.0)


def test_steps_that_were_rolled_back_are_recomputation(run: RunDirectory):
    attempt(run, submitted_at=1000.0, claimed_at=1000.0, step=30, num_rolled_back=10, at=1050.0)
    assert ledger_of(run, state=State.SUCCEEDED, until=1050.0).recomputation == pytest.approx(10.0)


def test_a_run_that_was_lost_is_idle_until_it_is_asked_to_go_on(run: RunDirectory):
    attempt(run, submitted_at=1000.0, claimed_at=1000.0, step=40, at=1050.0)
    lost = ledger_of(run, state=State.LOST, until=1150.0, is_finished=False)
    assert (lost.idle, lost.wall_s) == (100.0, 150.0)
    attempt(run, submitted_at=1200.0, claimed_at=1210.0, step=80, first_step=40, at=1260.0)
    found = ledger_of(run, state=State.RUNNING, until=1261.0, is_finished=False)
    assert (found.idle, found.queue, found.wall_s) == (150.0, 10.0, 261.0)


def test_a_run_that_waits_is_queueing(run: RunDirectory):
    assert ledger_of(run, state=State.PENDING, until=1030.0, is_finished=False).queue == 30.0


def test_workers_that_wait_for_room_after_a_loss_are_queueing(run: RunDirectory):
    attempt(run, submitted_at=1000.0, claimed_at=1000.0, step=40, at=1050.0)
    attempt(run, submitted_at=None, claimed_at=1060.0, step=80, first_step=40, at=2130.0)
    files.write_json(run.attempt(2).began, {"began_at": 2060.0})
    found = ledger_of(run, state=State.SUCCEEDED, until=2130.0)
    assert (found.queue, found.start, found.wall_s) == (1000.0, 10.0 + 20.0, 1130.0)


def test_damaged_files_do_not_stop_the_account(run: RunDirectory):
    attempt(run, submitted_at=1000.0, claimed_at=1000.0, step=40, at=1050.0)
    run.attempt(1).owner.write_text("{")
    found = ledger_of(run, state=State.SUCCEEDED, until=1050.0)
    assert found.wall_s == 50.0


def test_a_run_that_stands_still_is_not_exposed_to_failures(run: RunDirectory):
    """Its failures count by the time in which they could happen, or a week's pause would make nodes look reliable."""
    attempt(run, submitted_at=1000.0, claimed_at=1100.0, step=40, at=1160.0)
    attempt(run, submitted_at=9000.0, claimed_at=9050.0)
    assert time_exposed_s(run, attempt=2, now=9080.0) == 60.0 + 30.0
    assert time_exposed_s(run, attempt=2, now=0.0) == 60.0, "a clock that jumped back"


@pytest.mark.parametrize("seed", range(40))
def test_whatever_clocks_do_no_second_is_negative_and_no_more_was_good_than_there_was(run: RunDirectory, seed: int):
    draw = Random(seed)
    for _ in range(draw.randrange(1, 5)):
        submitted_at = draw.choice([None, draw.uniform(0, 1e5)])
        at = draw.choice([None, draw.uniform(0, 1e5)])
        attempt(run, submitted_at=submitted_at, claimed_at=draw.uniform(0, 1e5), step=draw.randrange(100), at=at)
    found = ledger_of(run, state=draw.choice(list(State)), until=draw.uniform(0, 1e5))
    assert all(part >= 0 for part in asdict(found).values()), found
    assert found.goodput is None or 0 <= found.goodput <= 1
