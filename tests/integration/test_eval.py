"""`dnctl eval`: every validation image once, from a checkpoint or from weights on disk; nothing executed on the way."""

import json
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.data.index import index_dataset
from orchestrator.engine.planning import load_plan
from orchestrator.errors import CheckpointError, DnctlError, UsageError
from orchestrator.run.evaluations import read_evaluations
from orchestrator.train.evaluate import evaluate
from orchestrator.train.loop import Outcome, train
from orchestrator.train.reporter import RunReporter
from orchestrator.train.world import World
from tests.images import write_folder
from tests.training import Trained, make_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def wide_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("wide"), num_train=6, num_val=7, num_classes=3, size=(300, 260))


def _eval(*arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["eval", *arguments, "--json"])
    if isinstance(result.exception, DnctlError):
        raise result.exception
    assert result.exit_code == 0, result.output
    document: dict[str, object] = json.loads(result.stdout)
    return document


def test_a_run_in_one_process_trains_and_evaluates_to_what_eval_says(tmp_path: Path, small_images: Path) -> None:
    run = make_run(tmp_path / "runs" / "alone", small_images, workers=1, overrides=["train.epochs=1"])
    plan = load_plan(run)
    assert plan is not None
    reporter = RunReporter(run, attempt=run.claim_attempt("test").number, keep_last=1, keep_best=1)
    outcome = train(plan, index_dataset(str(small_images)), World.single(), reporter)
    reporter.close()
    assert outcome is Outcome.FINISHED
    (during,) = Trained(run).events("evaluated")
    after = _eval("alone", "--batch-size", "3")
    assert (after["num_images"], after["crops"]) == (11, 1)
    assert (after["correct1"], after["correct5"]) == (during["correct1"], during["correct5"])
    (checkpoint,) = run.checkpoints.iterdir()
    assert _eval(str(checkpoint))["correct1"] == during["correct1"]
    assert _eval("alone", "--best")["correct1"] == during["correct1"]
    ten = _eval("alone", "--crops", "10")
    kept, faults = read_evaluations(run.evaluations)
    assert [(each.step, each.crops, each.correct1) for each in kept] == [
        (during["step"], 1, during["correct1"]),
        (during["step"], 10, ten["correct1"]),
    ]
    assert faults == []


def test_timm_weights_from_disk_are_evaluated(tmp_path: Path, wide_images: Path) -> None:
    model = timm.create_model("resnet18", num_classes=3)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    arguments = ("timm:resnet18", "--data", str(wide_images), "--weights")
    documents = [_eval(*arguments, str(tmp_path / name)) for name in ("weights.safetensors", "weights.pth")]
    assert documents[0]["num_images"] == 7
    assert documents[0]["loss"] == documents[1]["loss"]
    assert _eval("timm:resnet18", "--data", str(wide_images))["num_images"] == 7


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("executed"),))


def test_weights_that_would_execute_code_are_refused(
    tmp_path: Path, wide_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"weight": _Attack()}))
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        _eval("timm:resnet18", "--data", str(wide_images), "--weights", "evil.pth")
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_model_are_refused(tmp_path: Path, wide_images: Path) -> None:
    save_file(timm.create_model("resnet18", num_classes=5).state_dict(), tmp_path / "five.safetensors")
    with pytest.raises(
        CheckpointError, match=r"fc\.bias \(\[5\] where the model has \[3\]\); timm:resnet18 was made with 3 classes"
    ):
        _eval("timm:resnet18", "--data", str(wide_images), "--weights", str(tmp_path / "five.safetensors"))


def test_a_model_without_data_is_told_how_to_give_it() -> None:
    with pytest.raises(UsageError, match="--data"):
        _eval("timm:resnet18")


def test_counts_are_integers_and_an_empty_part_adds_nothing() -> None:
    accuracy = evaluate(
        torch.nn.Identity(), [], normalize=lambda images: images, autocast_dtype=None, world=World.single()
    )
    assert (accuracy.num_images, accuracy.correct1, accuracy.correct5) == (0, 0, 0)
