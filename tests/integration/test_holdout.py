"""Images held out by the seed are validated on; the test set is touched once, when the last step is done."""

from pathlib import Path

import numpy as np
import pytest

from orchestrator.data.index import index_dataset
from orchestrator.data.order import held_out_rows
from orchestrator.engine.planning import load_plan
from orchestrator.errors import PlanError
from orchestrator.run.checkpoints import best_checkpoint
from orchestrator.run.progress import read_progress
from orchestrator.train.loop import Outcome, train
from orchestrator.train.reporter import RunReporter
from orchestrator.train.requests import training_requests
from orchestrator.train.split import split_dataset
from orchestrator.train.world import World
from tests.training import Trained, make_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_the_split_is_a_function_of_the_seed_alone() -> None:
    rows = held_out_rows(seed=1, num_samples=50_000, num_held_out=5_000)
    assert len(set(rows.tolist())) == 5_000
    np.testing.assert_array_equal(rows, np.sort(rows))
    np.testing.assert_array_equal(rows, held_out_rows(seed=1, num_samples=50_000, num_held_out=5_000))
    other = held_out_rows(seed=2, num_samples=50_000, num_held_out=5_000)
    assert 400 < len(set(rows.tolist()) & set(other.tolist())) < 600  # a tenth, as chance has it


def _trained(tmp_path: Path, images: Path, *overrides: str) -> Trained:
    run = make_run(tmp_path / "run", images, workers=1, overrides=["data.holdout=10", *overrides])
    plan = load_plan(run)
    assert plan is not None
    reporter = RunReporter(run, attempt=run.claim_attempt("test").number, keep_last=1, keep_best=1)
    assert train(plan, index_dataset(str(images)), World.single(), reporter) is Outcome.FINISHED
    reporter.close()
    return Trained(run)


@pytest.mark.parametrize("weights", ["last", "best"])
def test_the_test_set_is_touched_once_at_the_end(tmp_path: Path, small_images: Path, weights: str) -> None:
    trained = _trained(tmp_path, small_images, f"eval.test={weights}")
    assert [event["num_images"] for event in trained.events("evaluated")] == [10, 10, 10]
    (tested,) = trained.events("tested")
    assert tested["num_images"] == 11
    best = best_checkpoint(trained.run.checkpoints, "top1")
    assert best is not None
    assert tested["step"] == (best.step if weights == "best" else 9)
    progress = read_progress(trained.run.attempts()[-1].progress)
    assert progress is not None
    assert (progress.test_top1, progress.test_top5) == (tested["top1"], tested["top5"])


def test_what_is_held_out_is_never_trained_on_and_all_else_is(tmp_path: Path, small_images: Path) -> None:
    run = make_run(tmp_path / "run", small_images, workers=1, overrides=["data.holdout=10", "train.epochs=2"])
    plan = load_plan(run)
    assert plan is not None
    numerics = plan.numerics
    assert (numerics.num_train_images, numerics.num_val_images, numerics.num_test_images) == (36, 10, 11)
    split = split_dataset(index_dataset(str(small_images)), numerics)
    requests = training_requests(numerics, plan.placement.group_shares[0], rows=split.train.rows, first_step=0)
    used = np.concatenate([request.indices for request in requests])
    assert sorted(used.tolist()) == sorted(2 * split.train.rows.tolist())
    assert not set(used.tolist()) & set(split.val.rows.tolist())
    assert set(used.tolist()) | set(split.val.rows.tolist()) == set(range(46))


def test_the_split_is_part_of_the_numerics(tmp_path: Path, small_images: Path) -> None:
    plans = [
        load_plan(make_run(tmp_path / str(number), small_images, workers=1, overrides=[f"data.holdout={number}"]))
        for number in (0, 10)
    ]
    assert plans[0] is not None
    assert plans[1] is not None
    differing = {key for key, _, _ in plans[0].numerics.differences(plans[1].numerics)}
    assert {"num_held_out_images", "num_test_images", "num_train_images", "num_val_images"} <= differing


def test_more_than_there_is_can_not_be_held_out(tmp_path: Path, small_images: Path) -> None:
    with pytest.raises(PlanError, match="found 46 of 46 training images; allowed: fewer than there are"):
        make_run(tmp_path / "run", small_images, workers=1, overrides=["data.holdout=46"])
