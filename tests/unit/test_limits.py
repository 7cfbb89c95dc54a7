"""Limits of a recipe: what counts, when the run is stopped, and what is said of it before and after."""

import signal
from pathlib import Path
from time import monotonic, sleep, time

import pytest

from orchestrator.data.index import index_dataset
from orchestrator.engine.deviation import deviate
from orchestrator.engine.driver import drive
from orchestrator.engine.limits import LimitWatch
from orchestrator.engine.planning import load_plan, make_plan, write_plan
from orchestrator.engine.task import WorkerTask
from orchestrator.engine.trainer import limits_of
from orchestrator.engine.turn import Tell
from orchestrator.engine.worker import ending_of
from orchestrator.errors import RecipeError, RunStoppedError
from orchestrator.plan.cluster import ClusterShape
from orchestrator.recipe.load import load_recipe
from orchestrator.run import files
from orchestrator.run.checkpoints import list_checkpoints
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.ending import failure, record_ending
from orchestrator.run.progress import Progress, read_progress, write_progress
from orchestrator.run.spent import Limits, Spent, read_spent, write_worker_nodes
from orchestrator.run.state import State
from orchestrator.run.status import read_status
from orchestrator.run.stop import StopRequest, ask_to_stop, read_stop_request
from orchestrator.train.loop import train
from orchestrator.train.reporter import RunReporter
from orchestrator.train.world import World
from tests.training import make_run
from tests.unit.test_plan_resolve import plan

HOUR = 3600.0
NOW = 1_000_000.0


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create(now=NOW)
    return directory


def _attempt(run: RunDirectory, *, workers: int, began_at: float, last_seen_at: float | None) -> None:
    attempt = run.claim_attempt("holder")
    files.write_json(attempt.worker_nodes, {"nodes": ["node"] * workers, "began_at": began_at})
    if last_seen_at is not None:
        figures = Progress(
            step=1, num_steps=9, epoch=0, num_epochs=1, steps_per_epoch=9, world_size=workers, at=last_seen_at
        )
        write_progress(attempt.progress, figures)


def test_all_attempts_count_each_with_its_workers_and_idle_time_does_not(run: RunDirectory):
    _attempt(run, workers=4, began_at=NOW, last_seen_at=NOW + 2 * HOUR)
    _attempt(run, workers=2, began_at=NOW + 50 * HOUR, last_seen_at=NOW + 50.5 * HOUR)
    assert read_spent(run, now=None) == Spent(hours=2.5, worker_hours=9.0)
    assert read_spent(run, now=NOW + 51 * HOUR) == Spent(hours=3.0, worker_hours=10.0)


def test_an_attempt_without_workers_takes_nothing(run: RunDirectory):
    run.claim_attempt("holder")
    _attempt(run, workers=4, began_at=NOW, last_seen_at=None)
    assert read_spent(run, now=None) == Spent()


@pytest.mark.parametrize(
    ("limits", "reached"),
    [
        (Limits(), None),
        (Limits(max_hours=3), None),
        (Limits(max_hours=2.5), "limits.hours is reached: 2.5 of 2.5; `dnctl resume` with a higher one goes on"),
        (Limits(max_money=18, price_per_worker_hour=2), "limits.money is reached: 18 of 18; "),
        (Limits(max_money=18.5, price_per_worker_hour=2), None),
    ],
)
def test_a_limit_is_reached_when_as_much_was_taken(limits: Limits, reached: str | None):
    found = limits.reached(Spent(hours=2.5, worker_hours=9.0))
    assert found is None if reached is None else found is not None and found.startswith(reached)


def test_the_driver_asks_the_run_to_stop_and_says_why(run: RunDirectory):
    _attempt(run, workers=1, began_at=time() - HOUR, last_seen_at=None)
    watch = LimitWatch(run, Limits(max_hours=0.5))
    deadline = monotonic() + 30
    while not run.stop_request.exists():
        assert monotonic() < deadline
        sleep(0.05)
    watch.close()
    request = read_stop_request(run.stop_request)
    assert request is not None
    assert str(request.reason).startswith("limits.hours is reached: 1 of 0.5")


def test_a_person_who_asked_first_is_not_overruled(run: RunDirectory):
    _attempt(run, workers=1, began_at=time() - HOUR, last_seen_at=None)
    ask_to_stop(run.stop_request)
    watch = LimitWatch(run, Limits(max_hours=0.5))
    sleep(1.5)
    watch.close()
    assert read_stop_request(run.stop_request) == StopRequest()


def test_a_run_that_is_stopped_before_it_began_is_no_failure():
    ending = failure(RunStoppedError("stopped before it began: limits.hours is reached"))
    assert (ending.outcome, ending.exit_code) == ("stopped", 6)


def test_limits_are_no_part_of_what_is_computed():
    limited = plan("limits.hours=5", "limits.money=7", "cluster.price_per_worker_hour=0.5")
    assert limited.numerics == plan().numerics
    assert limits_of(limited.execution) == Limits(max_hours=5, max_money=7, price_per_worker_hour=0.5)


def test_money_needs_a_price():
    with pytest.raises(RecipeError, match=r"limits\.money: found 7, but no price; allowed: null, or a number with"):
        load_recipe("demo", ["limits.money=7"])


def test_a_plan_that_would_be_stopped_says_so_and_what_it_would_cost():
    gpus = ClusterShape(num_cpus=32, num_gpus=4, gpu_type="NVIDIA GeForce RTX 3090")
    fast = ("train.precision=bf16", "train.channels_last=true", "cluster.price_per_worker_hour=0.5")
    limited = plan(*fast, "limits.hours=1", "limits.money=1000000", recipe="densenet121", cluster=gpus)
    time_ = limited.estimate.time
    assert time_ is not None
    assert time_.money == pytest.approx(time_.gpu_hours * 0.5)
    (note,) = [note for note in limited.notes if "limits" in note]
    assert note.startswith(f"The run would take about {time_.total_h:.3g} hours and is stopped at limits.hours=1")


def _fits_in_this_process(run: RunDirectory, attempt: AttemptDirectory, holder: str, tell: Tell) -> None:
    """What Ray's workers and the trainer do around the loop, with one worker and without Ray."""
    plan = load_plan(run)
    assert plan is not None
    root = load_recipe(run.recipe).data.root
    assert root is not None
    write_worker_nodes(attempt.worker_nodes, ["this one"])
    watch = LimitWatch(run, limits_of(plan.execution))
    reporter = RunReporter(run, attempt=attempt.number, keep_last=2, keep_best=1)
    try:
        outcome = train(plan, index_dataset(root), World.single(), reporter)
    finally:
        reporter.close()
        watch.close()
    task = WorkerTask(run=run, plan=plan, holder=holder, data_root=root, damaged="refuse")
    record_ending(attempt, ending_of(outcome, task))


@pytest.mark.slow
def test_a_run_stops_at_its_limit_with_a_checkpoint_and_goes_on_with_a_higher_one(tmp_path: Path, small_images: Path):
    before = signal.getsignal(signal.SIGTERM)
    rare = ["train.epochs=400", "eval.every_epochs=400", "checkpoint.every_epochs=400"]
    run = make_run(tmp_path / "run", small_images, workers=1, overrides=[*rare, "limits.hours=0.0005"])
    assert drive(run, _fits_in_this_process) == RunStoppedError.exit_code
    status = read_status(run, now=time())
    assert status.state is State.STOPPED
    assert status.reason.startswith("stopped with a checkpoint: limits.hours is reached: ")
    progress = status.progress
    assert progress is not None
    assert 0 < progress.step < progress.num_steps
    newest = list_checkpoints(run.checkpoints)[-1]
    assert (newest.step, status.spent.hours >= 0.0005) == (progress.step, True)

    run.stop_request.unlink()  # as resume does
    again = load_recipe(run.recipe, ["limits.hours=1", f"train.epochs={newest.step // 3 + 2}"])
    deviate(run, again)
    write_plan(run, make_plan(again, ClusterShape(num_cpus=1), before=load_plan(run)))
    assert drive(run, _fits_in_this_process) == 0
    first_steps = [read_progress(attempt.progress) for attempt in run.attempts()]
    assert [progress.first_step for progress in first_steps if progress is not None] == [0, newest.step]
    signal.signal(signal.SIGTERM, before)
