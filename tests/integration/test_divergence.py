"""A step that diverges changes no weights; the run goes on without it as the recipe says, also when resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.data.index import index_dataset
from orchestrator.engine.planning import load_plan
from orchestrator.errors import DivergedError
from orchestrator.recipe.load import load_recipe
from orchestrator.run.directory import RunDirectory
from orchestrator.run.passed_over import read_passed_over
from orchestrator.train import step as step_module
from orchestrator.train.loop import Outcome, train
from orchestrator.train.reporter import RunReporter
from orchestrator.train.world import World
from tests.training import Trained, make_run

pytestmark = pytest.mark.slow

SETTINGS = ("train.batch_norm_groups=1", "checkpoint.every_minutes=null", "train.epochs=4")
"""12 steps, three an epoch; saved after each epoch."""


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    """Makes the loss of given steps infinite."""

    def poison_steps(steps: set[int]) -> None:
        run_step, cross_entropy = step_module.TrainingStep.run, step_module.F.cross_entropy
        current = [-1]

        def run(self: Any, *arguments: Any, step: int, **options: Any) -> Any:
            current[0] = step
            return run_step(self, *arguments, step=step, **options)

        def loss(*arguments: Any, **options: Any) -> torch.Tensor:
            return cross_entropy(*arguments, **options) * (torch.inf if current[0] in steps else 1.0)

        monkeypatch.setattr(step_module.TrainingStep, "run", run)
        monkeypatch.setattr(step_module.F, "cross_entropy", loss)

    return poison_steps


def train_once(run: RunDirectory, *, epochs: int | None = None) -> Outcome:
    plan = load_plan(run)
    assert plan is not None
    dataset = index_dataset(str(load_recipe(run.recipe).data.root))
    reporter = RunReporter(run, attempt=run.claim_attempt("test").number, keep_last=9, keep_best=1)
    try:
        return train(plan, dataset, World.single(), reporter)
    finally:
        reporter.close()


def trained_run(path: Path, images: Path, *settings: str) -> Trained:
    run = make_run(path, images, workers=1, overrides=[*SETTINGS, *settings])
    assert train_once(run) is Outcome.FINISHED
    return Trained(run)


def test_a_bad_step_is_skipped_and_named(tmp_path: Path, small_images: Path, poison: Callable[[set[int]], None]):
    poison({7})
    trained = trained_run(tmp_path / "run", small_images, "guard.policy=skip")
    (event,) = trained.events("step_refused")
    assert (event["step"], event["loss"], event["policy"], len(event["samples"])) == (7, "inf", "skip", 16)
    assert event["losses_before"] == pytest.approx(trained.losses()[2:7])
    assert len(event["grad_norms_before"]) == 5
    assert read_passed_over(trained.run.passed_over).steps == {7}
    assert all(torch.tensor(trained.losses()).isfinite())


def test_a_rollback_goes_to_the_checkpoint_and_leaves_out_the_steps_since(
    tmp_path: Path, small_images: Path, poison: Callable[[set[int]], None]
):
    poison({7})
    trained = trained_run(tmp_path / "run", small_images)
    (event,) = trained.events("rolled_back")
    assert (event["step"], event["to_step"]) == (8, 6)
    assert read_passed_over(trained.run.passed_over).steps == {6, 7}


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_resumed_run_leaves_out_the_same_steps_to_the_bit(
    tmp_path: Path, small_images: Path, poison: Callable[[set[int]], None], policy: str
):
    poison({7})
    undisturbed = trained_run(tmp_path / "whole", small_images, f"guard.policy={policy}")
    run = make_run(tmp_path / "resumed", small_images, workers=1, overrides=[*SETTINGS, f"guard.policy={policy}"])
    train_once(run)
    for checkpoint in run.checkpoints.glob("step-*"):
        if checkpoint.name > "step-00000006.1":
            checkpoint.rename(tmp_path / checkpoint.name)
    assert train_once(run) is Outcome.FINISHED
    assert Trained(run).tensors_sha256() == undisturbed.tensors_sha256()


@pytest.mark.parametrize(
    ("setting", "steps", "said"),
    [
        ("guard.policy=stop", {7}, "the run diverged: step 7 was not applied: loss inf"),
        ("guard.max_tries=1", {7, 8}, r"diverged after 1 such steps in this epoch: step 8"),
        ("guard.policy=rollback", {1}, "diverged at step 1, before its first checkpoint"),
    ],
)
def test_a_run_that_diverges_for_good_fails_with_what_to_do(
    tmp_path: Path,
    small_images: Path,
    poison: Callable[[set[int]], None],
    setting: str,
    steps: set[int],
    said: str,
):
    poison(steps)
    run = make_run(tmp_path / "run", small_images, workers=1, overrides=[*SETTINGS, setting])
    with pytest.raises(DivergedError, match=said):
        train_once(run)
