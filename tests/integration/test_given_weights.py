"""A run that starts from given weights: fine-tuning, on the same classes or others."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from orchestrator.data.index import index_dataset
from orchestrator.engine.planning import load_plan
from orchestrator.errors import CheckpointError, NotFoundError
from orchestrator.models import create_model
from orchestrator.plan.plan import Plan
from orchestrator.run.checkpoints import list_checkpoints
from orchestrator.train.loop import train
from orchestrator.train.network import build_network
from orchestrator.train.reporter import RunReporter
from orchestrator.train.weights import start_from_given_weights
from orchestrator.train.world import World
from tests.training import Trained, make_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _plan(tmp_path: Path, images: Path, *overrides: str) -> Plan:
    plan = load_plan(make_run(tmp_path / "run", images, workers=1, overrides=["train.epochs=1", *overrides]))
    assert plan is not None
    return plan


def _started(plan: Plan) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    model = build_network(plan, torch.device("cpu"))
    left_out = start_from_given_weights(plan, model)
    return model.state_dict(), left_out


def test_a_run_starts_from_a_state_dict(tmp_path: Path, small_images: Path) -> None:
    given = create_model("densenet_demo", num_classes=3, seed=5).state_dict()
    save_file(given, tmp_path / "given.safetensors")
    started, left_out = _started(_plan(tmp_path, small_images, f"model.weights={tmp_path}/given.safetensors"))
    assert left_out == ()
    assert all(torch.equal(started[name], given[name]) for name in given)


def test_a_classifier_of_other_classes_stays_at_random_and_all_else_is_taken(
    tmp_path: Path, small_images: Path
) -> None:
    given = create_model("densenet_demo", num_classes=10, seed=5).state_dict()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in given.items()}}, tmp_path / "given.pth")
    plan = _plan(tmp_path, small_images, f"model.weights={tmp_path}/given.pth")
    started, left_out = _started(plan)
    random = build_network(plan, torch.device("cpu")).state_dict()
    assert left_out == ("classifier.weight", "classifier.bias")
    for name, tensor in started.items():
        assert torch.equal(tensor, random[name] if name in left_out else given[name])


def test_weights_of_another_network_are_refused(tmp_path: Path, small_images: Path) -> None:
    save_file(create_model("densenet40_12", num_classes=3).state_dict(), tmp_path / "other.safetensors")
    plan = _plan(tmp_path, small_images, f"model.weights={tmp_path}/other.safetensors")
    with pytest.raises(CheckpointError, match=r"is from another model: .* give the model\.name that they were"):
        _started(plan)


def test_weights_that_have_changed_since_the_plan_are_refused(tmp_path: Path, small_images: Path) -> None:
    path = tmp_path / "given.safetensors"
    save_file(create_model("densenet_demo", num_classes=3, seed=5).state_dict(), path)
    plan = _plan(tmp_path, small_images, f"model.weights={path}")
    save_file(create_model("densenet_demo", num_classes=3, seed=6).state_dict(), path)
    with pytest.raises(CheckpointError, match="is not what this run was planned with"):
        _started(plan)


def test_weights_that_are_nowhere_are_refused_before_anything_starts(tmp_path: Path, small_images: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        _plan(tmp_path, small_images, "model.weights=nowhere.safetensors")


def test_a_run_starts_from_the_checkpoint_of_another_one_and_says_so(tmp_path: Path, small_images: Path) -> None:
    images = index_dataset(str(small_images))
    trained, overrides = [], ["train.epochs=1"]
    for name in ("first", "second"):
        run = make_run(tmp_path / name, small_images, workers=1, overrides=overrides)
        plan = load_plan(run)
        assert plan is not None
        reporter = RunReporter(run, attempt=run.claim_attempt("test").number, keep_last=1, keep_best=1)
        train(plan, images, World.single(), reporter)
        reporter.close()
        trained.append(Trained(run))
        overrides = ["train.epochs=1", f"model.weights={list_checkpoints(run.checkpoints)[-1].path}"]
    (given,) = trained[1].events("weights_given")
    assert given["left_at_random"] == []
    assert trained[1].samples()[0] == trained[0].samples()[0]
    assert trained[1].losses()[0] != trained[0].losses()[0]
