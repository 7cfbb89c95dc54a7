"""The fused block computes what the reference does: results, every gradient, and running statistics."""

import pytest
import torch
from torch import Tensor, nn

from orchestrator.models import create_model, set_sample_keys
from orchestrator.models.block.groups import set_group_sizes

NETWORKS = ["densenet121", "densenet_demo", "densenet22_6", "densenetbc40_12"]


def with_lively_norms(model: nn.Module) -> nn.Module:
    """Norms as after some training, so that each one's weights and statistics matter."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
            nn.init.normal_(module.running_mean, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
    return model


def pair(name: str, dtype: torch.dtype = torch.float64, **arguments: object) -> tuple[nn.Module, nn.Module]:
    """The fused network and the reference, with the same weights."""
    models = [
        with_lively_norms(create_model(name, num_classes=10, seed=0, block=block, **arguments)).to(dtype)
        for block in ("fused", "reference")
    ]
    assert list(models[0].state_dict()) == list(models[1].state_dict())
    return models[0], models[1]


def images_for(name: str, num_images: int, dtype: torch.dtype = torch.float64) -> Tensor:
    size = 32 if name == "densenet121" else 16
    return torch.randn(num_images, 3, size, size, generator=torch.Generator().manual_seed(2), dtype=dtype)


def computed(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Logits, the gradient of every parameter and the images, and the buffers afterwards."""
    images = images.clone().requires_grad_()
    logits = model(images)
    cotangent = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    logits.backward(cotangent.to(logits.dtype))
    gradients = {f"{name}.grad": parameter.grad for name, parameter in model.named_parameters()}
    return {"logits": logits.detach(), "images.grad": images.grad, **gradients, **dict(model.named_buffers())}


def largest_relative_error(ours: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    assert ours.keys() == exact.keys()
    errors = [
        (ours[name].double() - exact[name]).norm() / exact[name].double().norm().clamp(min=1e-300) for name in exact
    ]
    return max(float(error) for error in errors)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_results_gradients_and_statistics_are_the_references(name, training):
    images = images_for(name, 4)
    fused, reference = (computed(model.train(training), images) for model in pair(name))
    assert largest_relative_error(fused, reference) < 1e-11


@pytest.mark.parametrize("name", ["densenet_demo", "densenet22_6"])
def test_dropout_takes_what_it_takes_from_the_reference(name):
    images = images_for(name, 4)
    results = []
    for model in pair(name, drop_rate=0.2):
        set_sample_keys(model, seed=5, epoch=1, indices=torch.tensor([3, 1, 4, 7]))
        results.append(computed(model, images))
    assert largest_relative_error(*results) < 1e-11


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_in_one_pass_are_as_passes_of_their_own(name):
    sizes = (3, 2, 2)
    images = images_for(name, sum(sizes))
    together, apart = pair(name)
    before = {key: value.clone() for key, value in apart.named_buffers()}
    set_group_sizes(together, sizes)
    ours = computed(together, images)
    logits = []
    sums = {key: torch.zeros_like(value) for key, value in before.items()}
    cotangent = torch.randn(sum(sizes), 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for part, part_cotangent in zip(images.split(sizes), cotangent.split(sizes), strict=True):
        for key, buffer in apart.named_buffers():
            buffer.copy_(before[key])
        logits.append(apart(part))
        logits[-1].backward(part_cotangent)
        for key, buffer in apart.named_buffers():
            sums[key] += buffer
    theirs = {
        "logits": torch.cat(logits).detach(),
        **{f"{key}.grad": parameter.grad for key, parameter in apart.named_parameters()},
        **{key: total / len(sizes) for key, total in sums.items() if total.is_floating_point()},
    }
    assert largest_relative_error({key: ours[key] for key in theirs}, theirs) < 1e-11


def test_a_batch_of_no_images_passes():
    fused, reference = (computed(model, images_for("densenet_demo", 0)) for model in pair("densenet_demo"))
    assert all(torch.equal(fused[key], reference[key]) for key in reference)


def test_a_frozen_norm_within_a_training_network_keeps_its_statistics():
    images = images_for("densenet_demo", 4)
    results = []
    for model in pair("densenet_demo"):
        model.features.denseblock2.denselayer2.norm1.eval()
        model.features.denseblock3.denselayer3.norm2.eval()
        model.features.transition1.norm.eval()
        results.append(computed(model, images))
    assert largest_relative_error(*results) < 1e-11


def test_norms_of_other_momentum_and_eps_are_honoured():
    images = images_for("densenet_demo", 4)
    results = []
    for model in pair("densenet_demo"):
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for number, norm in enumerate(norms):
            norm.momentum = [0.3, 1.0, None][number % 3]
            norm.eps = [1e-5, 1e-2][number % 2]
        results.append(computed(model, images))
    assert largest_relative_error(*results) < 1e-11


def test_groups_that_are_not_the_batch_are_refused():
    model, _ = pair("densenet_demo")
    set_group_sizes(model, (2, 3))
    with pytest.raises(ValueError, match=r"4 images, but groups of \(2, 3\)"):
        model(images_for("densenet_demo", 4))
