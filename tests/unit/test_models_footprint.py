"""What the plan counts without torch is what torch trains, multiplies and keeps."""

from contextlib import nullcontext

import pytest
import timm
import torch
from torch import Tensor, nn

from orchestrator.errors import UsageError
from orchestrator.models import create_model
from orchestrator.models.measure import measure_footprint
from orchestrator.plan.footprint import footprint
from orchestrator.plan.networks import NETWORKS

QUICK = [name for name in NETWORKS if name not in ("preresnet1001", "densenetbc250_24", "densenetbc190_40")]
"""All but the deepest, whose stages are those of others, repeated."""


def multiply_adds_seen_by_hooks(model: nn.Module, image_size: int) -> int:
    """Multiply-adds of every convolution and linear layer that one image passes."""
    total = 0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    return total


def bytes_kept_for_backward(model: nn.Module, num_images: int, image_size: int, precision: str) -> int:
    """Bytes of all distinct storages that autograd saves in one forward pass."""
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    images = torch.randn(num_images, 3, image_size, image_size)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext(),
    ):
        model(images)
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("image_size", [96, 101])
@pytest.mark.parametrize("name", QUICK)
def test_parameters_and_multiply_adds_are_exact(name, image_size):
    with torch.device("meta"):
        model = create_model(name, num_classes=17)
    cost = footprint(NETWORKS[name], num_classes=17, image_size=image_size)
    assert cost.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cost.num_multiply_adds == multiply_adds_seen_by_hooks(model, image_size)


@pytest.mark.parametrize("name", ["densenet121", "densenet169", "densenet201", "densenet161"])
def test_parameters_are_as_many_as_timm_s(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    cost = footprint(NETWORKS[name], num_classes=1000, image_size=224)
    assert cost.num_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("memory_efficient", [False, True])
@pytest.mark.parametrize(("name", "image_size"), [("densenet121", 70), ("densenet161", 64), ("densenet_demo", 32)])
def test_activation_memory_is_exactly_what_autograd_keeps(name, image_size, memory_efficient, precision):
    model = create_model(name, num_classes=10, memory_efficient=memory_efficient)
    # What three images keep and two don't is one image's; weights and batch statistics are in both.
    kept = [bytes_kept_for_backward(model, num_images, image_size, precision) for num_images in (2, 3)]
    cost = footprint(NETWORKS[name], num_classes=10, image_size=image_size)
    assert kept[1] - kept[0] == cost.activation_bytes_per_image(precision, memory_efficient=memory_efficient)


def test_basic_layers_keep_what_is_counted():
    changes = {"growth_rate": 5, "block_config": (2, 3), "bn_size": 0, "compression": 1.0}
    for memory_efficient in (False, True):
        model = create_model("densenet_demo", num_classes=10, memory_efficient=memory_efficient, **changes)
        kept = [bytes_kept_for_backward(model, num_images, 32, "fp32") for num_images in (2, 3)]
        architecture = type(NETWORKS["densenet_demo"])(num_init_features=24, stem="cifar", **changes)
        cost = footprint(architecture, num_classes=10, image_size=32)
        assert kept[1] - kept[0] == cost.activation_bytes_per_image("fp32", memory_efficient=memory_efficient)


@pytest.mark.parametrize("name", QUICK)
def test_measuring_ours_gives_what_is_counted(name):
    with torch.device("meta"):
        model = create_model(name)
    measured = measure_footprint(model, in_chans=3, image_size=64)
    counted = footprint(NETWORKS[name], num_classes=1000, image_size=64)
    assert measured.num_parameters == counted.num_parameters
    assert measured.num_multiply_adds == counted.num_multiply_adds
    assert measured.activation_bytes_per_image("fp32") == counted.activation_bytes_per_image("fp32")


def test_a_measured_table_s_rows_sum_to_the_model():
    with torch.device("meta"):
        model = create_model("timm:vit_tiny_patch16_224")
    measured = measure_footprint(model, in_chans=3, image_size=224)
    assert measured.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert measured.rows[-1].stage == "(elsewhere)"


def test_images_of_a_size_that_a_model_can_not_take_are_refused():
    with torch.device("meta"):
        model = create_model("timm:vit_tiny_patch16_224")
    with pytest.raises(UsageError, match="can't take images of 100 px"):
        measure_footprint(model, in_chans=3, image_size=100)
