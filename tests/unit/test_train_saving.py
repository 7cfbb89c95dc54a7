"""Checkpoints are written behind the loop, one at a time; what goes wrong is said and dealt with as the recipe says."""

from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from orchestrator.errors import StorageError, TakenOverError
from orchestrator.plan.interval import LONGEST_INTERVAL_S, SHORTEST_INTERVAL_S, best_interval_s
from orchestrator.plan.plan import Execution
from orchestrator.run.checkpoints import Checkpoint
from orchestrator.train import saving
from orchestrator.train.checkpoint import Snapshot, TrainingState
from orchestrator.train.reporter import SilentReporter
from orchestrator.train.saving import Saving


class Storage(SilentReporter):
    """Saves when it is let, and fails as it is told."""

    def __init__(self) -> None:
        self.open = Event()
        self.open.set()
        self.faults: list[Exception] = []
        self.saved: list[int] = []
        self.events: list[tuple[str, dict[str, Any]]] = []

    def save(self, *, step: int, contents: Mapping[str, bytes], metrics: Mapping[str, float | None]) -> Checkpoint:
        assert self.open.wait(30)
        if self.faults:
            raise self.faults.pop(0)
        self.saved.append(step)
        return Checkpoint(path=Path(f"step-{step:08d}.1"), step=step, attempt=1)

    def event(self, kind: str, **details: Any) -> None:
        self.events.append((kind, details))


def execution(**changes: Any) -> Execution:
    values: dict[str, Any] = dict.fromkeys(Execution.__dataclass_fields__) | {
        "checkpoint_steps": (10, 20),
        "checkpoint_every_minutes": None,
        "on_save_failure": "continue",
        "mtbf_hours": 24.0,
        "evaluation_steps": (20,),
    }
    return Execution(**(values | changes))


def taken_at(step: int) -> Snapshot:
    state = TrainingState(numerics_fingerprint="sha256:0", world_size=1, step=step)
    return Snapshot(model={"weight": torch.full((3,), float(step))}, momenta={}, state=state)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(saving, "LAST_TRY_PAUSE_S", 0.0)
    return Storage()


def test_the_loop_goes_on_while_a_checkpoint_is_written(storage: Storage):
    storage.open.clear()
    keeper = Saving(storage, execution(), first_step=0)
    assert keeper.is_due(10)
    keeper.begin(10, lambda: taken_at(10))
    assert not keeper.look(), "it is still being written"
    assert keeper.latest is None
    storage.open.set()
    assert keeper.wait()
    assert keeper.latest is not None
    assert (keeper.latest.step, storage.saved) == (10, [10])
    keeper.close()


def test_a_second_checkpoint_waits_for_the_first_and_the_same_step_is_saved_once(storage: Storage):
    keeper = Saving(storage, execution(), first_step=0)
    keeper.begin(10, lambda: taken_at(10))
    keeper.begin(20, lambda: taken_at(20))
    keeper.finish(20, lambda: taken_at(20))
    assert storage.saved == [10, 20]
    keeper.close()


def test_by_the_clock_nothing_is_due_while_a_checkpoint_is_written(storage: Storage):
    keeper = Saving(storage, execution(checkpoint_every_minutes=1e-9), first_step=0)
    assert keeper.is_due(1)
    storage.open.clear()
    keeper.begin(1, lambda: taken_at(1))
    assert not keeper.is_due(2)
    storage.open.set()
    keeper.wait()
    assert keeper.is_due(2)
    keeper.close()


def test_a_run_goes_on_without_a_checkpoint_that_could_not_be_written_and_says_so(storage: Storage):
    storage.faults = [StorageError("the disk is full")]
    keeper = Saving(storage, execution(), first_step=0)
    keeper.begin(10, lambda: taken_at(10))
    assert not keeper.wait()
    assert storage.events == [("checkpoint_failed", {"step": 10, "reason": "the disk is full", "goes_on": True})]
    keeper.finish(20, lambda: taken_at(20))
    assert storage.saved == [20]
    keeper.close()


def test_a_run_stops_at_a_checkpoint_that_could_not_be_written_if_the_recipe_says_so(storage: Storage):
    storage.faults = [StorageError("the disk is full")]
    keeper = Saving(storage, execution(on_save_failure="stop"), first_step=0)
    keeper.begin(10, lambda: taken_at(10))
    with pytest.raises(StorageError, match="full"):
        keeper.wait()
    keeper.close()


def test_the_last_checkpoint_is_tried_until_the_storage_takes_it(storage: Storage):
    storage.faults = [StorageError("the disk is full")] * 5
    keeper = Saving(storage, execution(), first_step=0)
    keeper.finish(20, lambda: taken_at(20))
    assert storage.saved == [20]
    keeper.close()


def test_a_run_does_not_end_without_its_last_checkpoint(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(saving, "LAST_PATIENCE_S", 0.0)
    storage.faults = [StorageError("the disk is full")]
    keeper = Saving(storage, execution(), first_step=0)
    with pytest.raises(StorageError, match="full"):
        keeper.finish(21, lambda: taken_at(21))
    keeper.close()


def test_an_attempt_that_was_taken_over_ends_whatever_the_recipe_says(storage: Storage):
    storage.faults = [TakenOverError("attempt 1 was taken over by attempt 2")]
    keeper = Saving(storage, execution(), first_step=0)
    keeper.begin(10, lambda: taken_at(10))
    with pytest.raises(TakenOverError):
        keeper.wait()
    keeper.close()


def test_the_interval_is_youngs_within_bounds():
    assert best_interval_s(hold_s=0.5, write_s=1.0, mean_time_between_failures_s=3600) == pytest.approx(60)
    assert best_interval_s(hold_s=0.0, write_s=0.0, mean_time_between_failures_s=3600) == SHORTEST_INTERVAL_S
    assert best_interval_s(hold_s=0.01, write_s=20.0, mean_time_between_failures_s=3600) == 200, "writing has its share"
    assert best_interval_s(hold_s=30, write_s=60, mean_time_between_failures_s=1e6) == LONGEST_INTERVAL_S


def test_a_checkpoint_is_scored_by_the_validation_of_its_own_weights_alone(storage: Storage):
    """One made within an epoch would otherwise pass for as good as the last epoch was."""
    keeper = Saving(storage, execution(), first_step=0)
    scores = []
    storage.save = lambda **arguments: scores.append(arguments["metrics"]) or checkpoint_at(arguments["step"])
    for step in (20, 23):
        state = TrainingState(numerics_fingerprint="sha256:0", world_size=1, step=step, top1=60.0, top5=90.0)
        keeper.begin(step, lambda state=state: Snapshot(model={}, momenta={}, state=state))
        keeper.wait()
    assert scores == [{"top1": 60.0, "top5": 90.0}, {"top1": None, "top5": None}]


def checkpoint_at(step: int) -> Checkpoint:
    return Checkpoint(path=Path("nowhere"), step=step, attempt=1)
