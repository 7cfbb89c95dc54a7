"""What makes a DenseNet-BC, piece by piece: with any one of them changed it is no longer timm's network.

The comparison is that of test_models_densenet.py; these tests show that it notices each piece.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchestrator.models import create_model
from orchestrator.models import densenet as densenet_module
from orchestrator.models.block import reference
from tests.peers import timm_densenet_for_small_images

SHAPE = {"growth_rate": 12, "block_config": (1, 3, 8)}
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def is_timms_network(**changes) -> bool:
    """Whether ours has timm's tensors, and with their values its outputs, in training and in evaluation."""
    theirs = timm_densenet_for_small_images(num_classes=10, seed=1, **SHAPE)
    ours = create_model("densenet_demo", num_classes=10, **changes)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (ours, theirs)]
    if shapes[0] != shapes[1]:
        return False
    ours.load_state_dict(theirs.state_dict())
    return all(
        torch.allclose(ours.train(training)(IMAGES), theirs.train(training)(IMAGES), rtol=1e-4, atol=1e-5)
        for training in (True, False)
    )


def test_ours_is_timms_network():
    assert is_timms_network()


@pytest.mark.parametrize(
    "changes",
    [
        {"bn_size": 2},  # 2k channels, as a reproduction had that fell short
        {"bn_size": 0},
        {"compression": 0.6},
        {"compression": 1.0},
        {"growth_rate": 13},
        {"num_init_features": 16},
        {"block_config": (1, 4, 7)},
    ],
    ids=str,
)
def test_another_width_compression_or_depth_is_noticed(changes):
    assert not is_timms_network(**changes)


def _post_activation(norm, conv, *maps, recompute):
    """Convolution first; the norm has other channels then, so its place alone is taken."""
    features = torch.cat(maps, dim=1)
    return F.relu(conv(norm(features)))


def _without_relu(norm, conv, *maps, recompute):
    return conv(norm(torch.cat(maps, dim=1)))


def _without_norm(norm, conv, *maps, recompute):
    return conv(F.relu(torch.cat(maps, dim=1)))


@pytest.mark.parametrize("other", [_post_activation, _without_relu, _without_norm])
@pytest.mark.parametrize("where", [reference, densenet_module], ids=["layers", "transitions"])
def test_another_order_than_norm_relu_convolution_is_noticed(monkeypatch, where, other):
    monkeypatch.setattr(where, "preactivated_conv", other)
    assert not is_timms_network()


def test_another_pool_in_transitions_is_noticed(monkeypatch):
    monkeypatch.setattr(nn.AvgPool2d, "forward", lambda self, maps: F.max_pool2d(maps, 2))
    ours = create_model("densenet_demo", num_classes=10, seed=0).eval()(IMAGES)
    monkeypatch.undo()
    assert not torch.allclose(ours, create_model("densenet_demo", num_classes=10, seed=0).eval()(IMAGES))


@pytest.mark.parametrize(("init", "is_the_authors"), [("authors", True), ("timm", False)])
def test_initial_weights_have_the_spread_of_the_authors_formula_and_no_other(init, is_the_authors):
    """sqrt(2 / (k_w k_h channels_out)); a bottleneck's fan-in and fan-out differ by far more than chance does."""
    model = create_model("densenet121", init=init, seed=0)
    strays = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels != module.out_channels:
            expected = math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels))
            strays.append(abs(module.weight.std().item() / expected - 1) * math.sqrt(2 * module.weight.numel()))
    assert (max(strays) < 5) == is_the_authors
