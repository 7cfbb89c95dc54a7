"""A run resumed with another schedule: recorded, the old plan kept; anything else about it stays as it was."""

from pathlib import Path

import pytest

from orchestrator.data.index import index_dataset
from orchestrator.engine.deviation import deviate
from orchestrator.engine.planning import load_plan
from orchestrator.errors import RecipeError, UsageError
from orchestrator.plan.plan import Plan
from orchestrator.recipe.load import load_recipe
from orchestrator.run.directory import RunDirectory
from orchestrator.train.loop import train
from orchestrator.train.reporter import RunReporter
from orchestrator.train.world import World
from tests.training import Trained, make_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _train(run: RunDirectory, images: Path) -> Trained:
    plan = load_plan(run)
    assert plan is not None
    reporter = RunReporter(run, attempt=run.claim_attempt("test").number, keep_last=2, keep_best=1)
    train(plan, index_dataset(str(images)), World.single(), reporter)
    reporter.close()
    return Trained(run)


def _changed(run: RunDirectory, *overrides: str) -> Plan | None:
    return deviate(run, load_recipe(run.recipe, list(overrides)))


def test_a_finished_run_goes_on_for_more_epochs_at_another_rate(tmp_path: Path, small_images: Path) -> None:
    run = make_run(tmp_path / "run", small_images, workers=1, overrides=["train.epochs=2"])
    before = load_plan(run)
    assert before is not None
    first = _train(run, small_images).losses()
    plan = _changed(run, "train.epochs=4", "train.schedule.milestones=[3]", "train.optimizer.lr=0.05")
    assert plan is not None
    assert load_plan(run) == plan
    assert Plan.from_json((run.path / "plan-0.json").read_text()) == before
    (deviation,) = plan.deviations
    assert deviation.step == 6
    assert ("epochs", "2", "4") in deviation.changes
    assert ("optimizer.lr", "0.1", "0.05") in deviation.changes
    rows = _train(run, small_images).rows()
    assert [rows[step]["loss"] for step in sorted(rows)][:6] == first
    assert sorted(rows) == list(range(1, 13))
    assert [rows[step]["learning_rate"] for step in (7, 12)] == pytest.approx([0.05, 0.005])


def test_a_second_deviation_keeps_the_first_and_both_plans(tmp_path: Path, small_images: Path) -> None:
    run = make_run(tmp_path / "run", small_images, workers=1, overrides=["train.epochs=1"])
    for epochs in (2, 3):
        _train(run, small_images)
        plan = _changed(run, f"train.epochs={epochs}")
        assert plan is not None
    assert [deviation.step for deviation in plan.deviations] == [3, 6]
    kept = [Plan.from_json((run.path / f"plan-{number}.json").read_text()) for number in (0, 1)]
    assert [each.numerics.epochs for each in kept] == [1, 2]
    assert len(_train(run, small_images).losses()) == 9


def test_what_is_not_the_schedule_can_not_change(tmp_path: Path, small_images: Path) -> None:
    run = make_run(tmp_path / "run", small_images, workers=1)
    for override, said in (
        ("seed=5", r"seed: now 5, the run began with 0"),
        ("model.drop_rate=0.2", r"model\.drop_rate: now 0\.2"),
        ("train.global_batch_size=8", "global_batch_size: now 8"),
    ):
        with pytest.raises(UsageError, match=said):
            _changed(run, override)
    assert _changed(run, "eval.batch_size=3") is None
    with pytest.raises(RecipeError, match="where the run of 3 epochs is over"):
        _changed(run, "train.schedule.milestones=[7]")


def test_a_run_can_not_end_before_where_it_is_nor_after_its_test(tmp_path: Path, small_images: Path) -> None:
    run = make_run(tmp_path / "run", small_images, workers=1, overrides=["train.epochs=2", "data.holdout=10"])
    _train(run, small_images)
    with pytest.raises(UsageError, match=r"has done 6 steps, 2 epochs: train\.epochs must be above that, found 1"):
        _changed(run, "train.epochs=1", "train.schedule.milestones=[]")
    with pytest.raises(UsageError, match="its test set has been touched"):
        _changed(run, "train.epochs=9")
