"""The residual networks of Table 2: pre- or post-activation, shortcuts, strides, and stochastic depth by sample."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchestrator.errors import UsageError
from orchestrator.models import clear_sample_keys, create_model, set_sample_keys
from orchestrator.models.dropout import SampleMask, StochasticDepth

SMALL = ("cifarresnet14", "preresnet11", "wideresnet10_2")


@pytest.mark.parametrize("name", SMALL)
def test_maps_are_halved_twice_and_batches_of_any_size_pass(name):
    model = create_model(name, num_classes=7, seed=0)
    shapes = []
    for stage in model.stages:
        stage.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape[2:])))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert shapes == [(32, 32), (16, 16), (8, 8)]
    assert model(torch.empty(0, 3, 32, 32)).shape == (0, 7)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name):
    model = create_model(name, num_classes=7, seed=0)
    F.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_a_basic_unit_without_its_branch_is_every_second_pixel_and_channels_of_zeros():
    unit = create_model("cifarresnet14", seed=0).eval().stages[1][0]
    nn.init.zeros_(unit.norm2.weight)
    maps = torch.randn(2, 16, 32, 32)
    out = unit(maps)
    assert torch.equal(out[:, :16], F.relu(maps[:, :, ::2, ::2]))
    assert not out[:, 16:].any()


@pytest.mark.parametrize("name", ["preresnet11", "wideresnet10_2"])
def test_a_preactivated_unit_is_its_definition(name):
    """Written out with plain functions; the shortcut reads what the first norm and ReLU leave."""
    unit = create_model(name, seed=0).eval().stages[1][0]
    maps = torch.randn(2, unit.norm1.num_features, 32, 32)
    activated = F.relu(unit.norm1(maps))
    branch = unit.conv1(activated)
    later = [(unit.norm2, unit.conv2)] + ([(unit.norm3, unit.conv3)] if name == "preresnet11" else [])
    for norm, conv in later:
        branch = conv(F.relu(norm(branch)))
    assert torch.equal(unit(maps), branch + unit.shortcut(activated))
    assert unit.conv1.stride == (2, 2)


def test_the_probability_of_losing_a_unit_grows_linearly_with_depth():
    model = create_model("cifarresnet110", stochastic_depth=0.5)
    rates = [module.p for module in model.modules() if isinstance(module, StochasticDepth)]
    assert rates == [0.5 * number / 54 for number in range(1, 55)]


def test_stochastic_depth_scales_by_the_probability_of_survival_in_evaluation():
    depth = StochasticDepth(0.25).eval()
    assert torch.equal(depth(torch.ones(2, 3, 4, 4)), torch.full((2, 3, 4, 4), 0.75))


def test_a_sample_loses_the_same_units_in_whatever_batch_it_is():
    depth = StochasticDepth(0.5, layer=3)
    model = nn.Sequential(nn.Linear(1, 1), depth)

    def kept(indices, epoch=2, seed=7):
        set_sample_keys(model, seed=seed, epoch=epoch, indices=indices)
        return depth(torch.ones(len(indices), 2, 3, 3)).amax((1, 2, 3)).bool()

    everyone = kept(torch.arange(1000))
    assert torch.equal(kept(torch.arange(1000).flip(0)), everyone.flip(0))
    assert torch.equal(kept(torch.arange(300, 310)), everyone[300:310])
    assert 400 < everyone.sum() < 600
    assert not torch.equal(kept(torch.arange(1000), epoch=3), everyone)
    assert not torch.equal(kept(torch.arange(1000), seed=8), everyone)


def test_masks_of_a_network_are_told_apart_and_without_keys_are_torch_s():
    model = create_model("wideresnet10_2", drop_rate=0.3, stochastic_depth=0.5, seed=0)
    layers = [module.layer for module in model.modules() if isinstance(module, SampleMask)]
    assert sorted(layers) == list(range(len(layers)))
    clear_sample_keys(model)
    images = torch.randn(8, 3, 32, 32)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(model(images))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_what_a_network_has_not_is_refused():
    with pytest.raises(UsageError, match="stochastic_depth that a recipe can set"):
        create_model("densenet40_12", stochastic_depth=0.5)
    with pytest.raises(UsageError, match="memory_efficient that a recipe can set; our DenseNets have"):
        create_model("preresnet11", memory_efficient=True)
