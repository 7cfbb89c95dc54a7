"""The fused block computes what the reference does: results, every gradient, and running statistics."""

import copy
from statistics import median

import pytest
import torch
from torch import Tensor, nn

from orchestrator.models import create_model, set_sample_keys
from orchestrator.models.block import activation, fused
from orchestrator.models.block.compile import NoCompilerError, build
from orchestrator.models.block.groups import set_group_sizes
from orchestrator.models.block.plain import PlainKernels
from orchestrator.models.block.select import kernels_for

NETWORKS = ["densenet121", "densenet_demo", "densenet22_6", "densenetbc40_12"]
DEEPER = ["densenet169", "densenet201", "densenet264"]
FOR_CIFAR = ["densenet40_12", "densenetbc100_12"]
SLOW_NETWORKS = [pytest.param(name, marks=pytest.mark.slow) for name in (*DEEPER, *FOR_CIFAR)]


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


def image_size(name: str) -> int:
    """The least that leaves a network's last norms more than two values, of which rounding is magnified."""
    return 64 if name in ("densenet121", *DEEPER) else 16


def images_for(name: str, num_images: int, dtype: torch.dtype = torch.float64) -> Tensor:
    size = image_size(name)
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
@pytest.mark.parametrize("name", [*NETWORKS, *SLOW_NETWORKS])
def test_results_gradients_and_statistics_are_the_references(name, training):
    images = images_for(name, 4)
    ours, reference = (computed(model.train(training), images) for model in pair(name))
    assert largest_relative_error(ours, reference) < 1e-11


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
    ours, reference = (computed(model, images_for("densenet_demo", 0)) for model in pair("densenet_demo"))
    assert all(torch.equal(ours[key], reference[key]) for key in reference)


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


KERNELS = {"plain": PlainKernels(), "native": kernels_for("cpu")}


def run_with(monkeypatch: pytest.MonkeyPatch, kernels: str) -> None:
    """Let fused modules on the CPU use these kernels."""
    for module in (fused, activation):
        monkeypatch.setattr(module, "kernels_of", lambda device: KERNELS[kernels])


def errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Relative error of each kind of tensor, all of a kind taken together."""
    kinds: dict[str, list[str]] = {}
    for key in exact:
        if exact[key].is_floating_point():
            kinds.setdefault(key.split(".", 1)[0] + "." + ".".join(key.rsplit(".", 2)[-2:]), []).append(key)
    return {
        kind: (
            sum(float((found[key].double() - exact[key]).square().sum()) for key in keys)
            / sum(float(exact[key].square().sum()) for key in keys)
        )
        ** 0.5
        for kind, keys in kinds.items()
    }


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("kernels", "names"),
    [
        ("plain", ["densenet_demo"]),
        ("plain", ["densenet22_6"]),
        ("native", ["densenet_demo"]),
        ("native", ["densenet22_6"]),
        pytest.param("native", FOR_CIFAR, marks=pytest.mark.slow),
        pytest.param("native", ["densenet121", *DEEPER], marks=pytest.mark.slow),
    ],
)
def test_the_error_is_at_most_one_and_a_half_times_the_references(kernels, names, autocast, training, monkeypatch):
    """Of all tensors of a kind together, on the median over networks and inputs: where rounding takes a value across
    ReLU's zero, which is chance, an error is many times the others. The reference in the fused block's own layout:
    oneDNN adds up in another order, and more exactly, where channels lie apart."""
    run_with(monkeypatch, kernels)
    ratios: dict[str, list[float]] = {}
    for name in names:
        ours, reference = (model.to(memory_format=torch.channels_last) for model in pair(name, torch.float32))
        models = [ours, reference, copy.deepcopy(reference).double()]
        states = copy.deepcopy([model.state_dict() for model in models])
        for seed in range(3):
            size = (4, 3, image_size(name) - 1, image_size(name))
            images = torch.randn(size, generator=torch.Generator().manual_seed(seed))
            images = images.to(memory_format=torch.channels_last)
            results = []
            for model, state in zip(models, states, strict=True):
                model.load_state_dict(state)
                model.zero_grad(set_to_none=True)
                dtype = next(model.parameters()).dtype
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast and dtype is torch.float32):
                    results.append(computed(model.train(training), images.to(dtype)))
            *results, exact = results
            of_ours, of_reference = (errors(result, exact) for result in results)
            for kind, error in of_reference.items():
                ratios.setdefault(kind, []).append((of_ours[kind] + 1e-8) / (error + 1e-8))
    worse = {kind: of_kind for kind, of_kind in ratios.items() if median(of_kind) > 1.5}
    assert not worse


def test_native_results_are_the_same_bits_on_every_run():
    fused_model, _ = pair("densenet_demo", torch.float32)
    images, runs = images_for("densenet_demo", 6, torch.float32), []
    state = copy.deepcopy(fused_model.state_dict())
    for _ in range(2):
        fused_model.load_state_dict(state)
        fused_model.zero_grad(set_to_none=True)
        runs.append(computed(fused_model, images))
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


def test_a_value_that_is_no_number_reaches_the_loss():
    fused_model, _ = pair("densenet_demo", torch.float32)
    assert fused_model(torch.full((4, 3, 16, 16), torch.nan)).isnan().all()


def test_without_a_compiler_the_block_still_runs_and_says_so(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("DNCTL_KERNEL_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert kernels_for.__wrapped__("cpu").name == "plain"
    assert "no compiler no-such-compiler: install g++" in caplog.text


@pytest.mark.slow
def test_a_library_is_compiled_once_and_found_again(monkeypatch, tmp_path):
    monkeypatch.setenv("DNCTL_KERNEL_CACHE", str(tmp_path))
    assert build().compile_s > 0
    assert build().compile_s == 0
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".lock", ".so"]


def test_a_compiler_that_fails_is_told_of_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("DNCTL_KERNEL_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(NoCompilerError, match="can't compile the fused block"):
        build()
