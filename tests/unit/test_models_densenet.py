"""Ours is the network that timm and torchvision have, weight for weight, and starts as the authors' did."""

import copy
import math

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import orchestrator.models.timm_entries  # noqa: F401
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.models import create_model
from orchestrator.plan.architecture import DENSENETS, DenseNetArchitecture
from orchestrator.plan.footprint import footprint
from orchestrator.plan.networks import NETWORKS

PEERS = {"timm": timm.create_model, "torchvision": torchvision.models.get_model}
SHARED_NAMES = ("densenet121", "densenet169", "densenet201", "densenet161")


def with_lively_norms(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Norms as after some training, so that each one's weights and statistics matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
            nn.init.normal_(module.running_mean, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
    return model


def outputs_and_gradients(model: nn.Module, images: Tensor, cotangent: Tensor) -> dict[str, Tensor]:
    """Logits, the gradient of every parameter and the image, and the buffers afterwards."""
    images = images.clone().requires_grad_()
    logits = model(images)
    logits.backward(cotangent)
    gradients = {f"{name}.grad": parameter.grad for name, parameter in model.named_parameters()}
    return {"logits": logits.detach(), "images.grad": images.grad, **gradients, **dict(model.named_buffers())}


def largest_relative_error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    errors = [(ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp(min=1e-300) for name in theirs]
    return max(float(error) for error in errors)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", ["densenet121", "densenet161"])
@pytest.mark.parametrize("peer", PEERS)
def test_outputs_gradients_and_statistics_equal_the_peers(peer, name, dtype, tolerance, training):
    generator = torch.Generator().manual_seed(0)
    theirs = with_lively_norms(PEERS[peer](name, num_classes=10), generator)
    ours = create_model(name, num_classes=10)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(4, 3, 64, 64, generator=generator, dtype=dtype)
    cotangent = torch.randn(4, 10, generator=generator, dtype=dtype)
    results = [outputs_and_gradients(model.to(dtype).train(training), images, cotangent) for model in (ours, theirs)]
    assert largest_relative_error(*results) <= tolerance


@pytest.mark.parametrize("name", SHARED_NAMES)
@pytest.mark.parametrize("peer", PEERS)
def test_state_dicts_load_both_ways(peer, name):
    with torch.device("meta"):
        ours, theirs = create_model(name), PEERS[peer](name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), assign=True)
    theirs.load_state_dict(ours.state_dict(), assign=True)


def test_the_activation_comes_before_the_convolution():
    model = create_model("densenet_demo", num_classes=10).eval()
    order = []
    layer = model.features.denseblock2.denselayer3
    for name, module in layer.named_children():
        module.register_forward_hook(lambda *_, name=name: order.append(name))
    inputs = []
    layer.conv1.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    model(torch.randn(2, 3, 32, 32))
    assert order == ["norm1", "conv1", "drop1", "norm2", "conv2", "drop2"]
    assert inputs[0].min() == 0


@pytest.mark.parametrize(("init", "fan"), [("authors", "out"), ("timm", "in")])
def test_convolutions_start_with_the_spread_asked_for(init, fan):
    model = create_model("densenet121", init=init, seed=0)
    for name, conv in model.named_modules():
        if isinstance(conv, nn.Conv2d):
            channels = conv.out_channels if fan == "out" else conv.in_channels
            expected = math.sqrt(2 / (math.prod(conv.kernel_size) * channels))
            # The sample's standard deviation strays by a share of 1 / sqrt(2 n); five times that never happens.
            tolerance = 5 / math.sqrt(2 * conv.weight.numel())
            assert conv.weight.std().item() == pytest.approx(expected, rel=tolerance), name


def test_norms_start_at_one_and_zero_and_the_classifier_as_torch_s_linear_without_bias():
    model = create_model("densenet121", seed=0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()
    assert model.classifier.bias.eq(0).all()
    assert model.classifier.weight.abs().max().item() == pytest.approx(1 / math.sqrt(1024), rel=0.01)


def test_weights_are_a_function_of_the_seed_and_leave_torch_s_generator_alone():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = create_model("densenet_demo", seed=1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(8)
    again, other = (
        create_model("densenet_demo", seed=1).state_dict(),
        create_model("densenet_demo", seed=2).state_dict(),
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features.conv0.weight"], other["features.conv0.weight"])


@pytest.mark.parametrize("bn_size", [0, 2, 4])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_the_general_form_has_the_parameters_that_the_plan_counts(bn_size, stem):
    changes = {
        "growth_rate": 5,
        "block_config": (2, 3),
        "num_init_features": 7,
        "bn_size": bn_size,
        "compression": 0.7,
        "stem": stem,
    }
    model = create_model("densenet121", num_classes=11, in_chans=2, drop_rate=0.1, **changes)
    architecture = type(DENSENETS["densenet121"])(**changes)
    expected = footprint(architecture, num_classes=11, in_chans=2, image_size=32).num_parameters
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert model(torch.randn(2, 2, 32, 32)).shape == (2, 11)


@pytest.mark.parametrize("memory_efficient", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_batch_of_no_images_passes_and_leaves_statistics_and_gradients_alone(memory_efficient, memory_format):
    model = create_model("densenet_demo", num_classes=10, drop_rate=0.2, memory_efficient=memory_efficient)
    model.to(memory_format=memory_format)
    with_lively_norms(model, torch.Generator().manual_seed(0))
    before = copy.deepcopy(model.state_dict())
    logits = model(torch.empty(0, 3, 32, 32).to(memory_format=memory_format))
    logits.sum().backward()
    assert logits.shape == (0, 10)
    assert all(parameter.grad.eq(0).all() for parameter in model.parameters())
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if "num_batches_tracked" not in name)


def test_timm_makes_ours_under_a_name_of_its_own():
    model = timm.create_model("dnctl_densenet121", num_classes=7, in_chans=1)
    assert type(model).__module__ == "orchestrator.models.densenet"
    assert model(torch.randn(2, 1, 64, 64)).shape == (2, 7)
    assert type(timm.create_model("densenet121")).__module__ == "timm.models.densenet"
    densenets = {name for name, shape in NETWORKS.items() if isinstance(shape, DenseNetArchitecture)}
    assert {f"dnctl_{name}" for name in densenets} == set(timm.list_models("dnctl_*"))


def test_timm_s_feature_extraction_and_head_replacement_work_on_ours():
    features = timm.create_model("dnctl_densenet121", features_only=True)
    maps = features(torch.randn(2, 3, 64, 64))
    assert [tuple(each.shape[1:]) for each in maps] == [
        (64, 32, 32),
        (256, 16, 16),
        (512, 8, 8),
        (1024, 4, 4),
        (1024, 2, 2),
    ]
    model = timm.create_model("dnctl_densenet_demo", num_classes=0)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, model.num_features)
    model.reset_classifier(4)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)


def test_timm_groups_our_parameters_by_depth():
    model = create_model("densenet121")
    groups = timm.models.group_parameters(model, model.group_matcher(coarse=False))
    assert sum(len(names) for names in groups.values()) == len(list(model.parameters()))


def test_timm_s_models_can_be_named():
    model = create_model("timm:resnet18", num_classes=5, in_chans=1, seed=0)
    assert type(model).__module__ == "timm.models.resnet"
    assert model(torch.randn(2, 1, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "nearest"), [("densenet122", "densenet121"), ("timm:resnet51", "resnet50"), ("resnet50", "timm:NAME")]
)
def test_unknown_names_bring_the_nearest_ones(name, nearest):
    with pytest.raises(NotFoundError, match=nearest):
        create_model(name)


def test_what_a_model_does_not_have_is_refused():
    with pytest.raises(UsageError, match="has no grow_rate; it has growth_rate"):
        create_model("densenet121", grow_rate=3)
    with pytest.raises(UsageError, match=r"timm:resnet18 has no drop_rate, memory_efficient that a recipe can set"):
        create_model("timm:resnet18", drop_rate=0.1, memory_efficient=True)
