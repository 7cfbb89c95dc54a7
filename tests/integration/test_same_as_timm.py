"""timm's DenseNet-BC in our loop, from the same weights, follows the same losses: the network is the same in training,
too. `benchmarks/curves.py` compares them from weights of their own, over seeds."""

from pathlib import Path

import pytest
import torch

from orchestrator.data.index import index_dataset
from orchestrator.engine.planning import load_plan
from orchestrator.train import loop
from orchestrator.train.network import build_network
from orchestrator.train.reporter import RunReporter
from orchestrator.train.world import World
from tests.peers import timm_densenet_for_small_images
from tests.training import Trained, make_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _of_timm(plan, device: torch.device) -> torch.nn.Module:
    model = timm_densenet_for_small_images(
        num_classes=plan.numerics.num_classes, growth_rate=12, block_config=(1, 3, 8)
    )
    model.load_state_dict(build_network(plan, device).state_dict())
    return model.train()


def test_timms_network_from_our_weights_follows_our_losses(
    tmp_path: Path, small_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for build in (build_network, _of_timm):
        monkeypatch.setattr(loop, "build_network", build)
        overrides = ["train.epochs=2", "train.optimizer.lr=0.01", "model.block=reference"]
        run = make_run(tmp_path / build.__name__, small_images, workers=1, overrides=overrides)
        plan = load_plan(run)
        assert plan is not None
        reporter = RunReporter(run, attempt=run.claim_attempt("test").number, keep_last=1, keep_best=1)
        loop.train(plan, index_dataset(str(small_images)), World.single(), reporter)
        reporter.close()
        losses.append(Trained(run).losses())
    ours, theirs = losses
    assert len(ours) == 6
    assert theirs == pytest.approx(ours, rel=1e-3)
