"""What a worker of `dnctl eval --cluster` does, in this process: it counts as the run itself did."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from orchestrator.engine import evaluation_job
from orchestrator.engine.evaluation import EvaluationTask
from orchestrator.errors import DataError
from orchestrator.run.checkpoints import list_checkpoints
from orchestrator.run.status import newest_progress
from tests.training import make_run, train_ranks


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_as_its_run_did(tmp_path: Path, small_images: Path, monkeypatch: pytest.MonkeyPatch):
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(evaluation_job.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(evaluation_job.ray.train.torch, "get_device", lambda: torch.device("cpu"))
    run = make_run(tmp_path / "run", small_images, workers=1, overrides=["train.epochs=1"])
    train_ranks(run, workers=1)
    task = EvaluationTask(
        checkpoint=str(list_checkpoints(run.checkpoints)[-1].path),
        root=str(small_images),
        split="val",
        crops=None,
        loader=None,
        batch_size=4,
    )
    answer = evaluation_job._evaluate(task, num_threads=1)
    progress = newest_progress(run)
    assert progress is not None
    assert (answer["num_images"], answer["top1"], answer["top5"]) == (11, progress.top1, progress.top5)
    assert (answer["crops"], answer["workers"], answer["device"]) == (1, 1, "cpu")
    elsewhere = EvaluationTask(**{name: getattr(task, name) for name in task.__slots__} | {"split": "nowhere"})
    with pytest.raises(DataError):
        evaluation_job._evaluate(elsewhere, num_threads=1)
