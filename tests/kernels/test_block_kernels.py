"""Each kernel of the fused block is as near to the exact result as the plain operations are in the same precision."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from orchestrator.models.block.kernels import Gradient, Grid, Moments, Norm, Source, statistics_dtype
from orchestrator.models.block.plain import PlainKernels

# The interpreter computes float16 as it does float32; only bfloat16 is anything else to it.
DTYPES = [torch.float32, torch.bfloat16, *([torch.float16] if torch.cuda.is_available() else [])]
# Rows that no block divides, groups of different sizes, an empty one among them.
GRID = Grid(group_sizes=(2, 0, 1), height=3, width=7, num_values=(42, 0, 21))
ONE_GROUP = Grid(group_sizes=(3,), height=4, width=4, num_values=(48,))
EMPTY = Grid(group_sizes=(0, 0), height=3, width=7, num_values=(0, 0))
MARGIN = 1.5
SPACING = torch.finfo(torch.float32).eps * (2 if torch.cuda.is_available() else 1)
"""Of float32: of two results that are this near to the exact one, neither is the better. (On a CPU the plain operations
sum float32 in float64; on a GPU their own error is a matter of chance.)"""
FACTOR_SEED = 7


@pytest.fixture
def kernels():
    return small_kernels()


def small_kernels():
    """Blocks so small that a test's maps take several of each."""
    from orchestrator.models.block.triton import Tile, Tiles, TritonKernels

    tile = Tile(rows=16, channels=16, num_warps=4, num_stages=2, programs_per_processor=1)
    of_operations = dict.fromkeys(("forward", "backward", "summed", "passed"), tile)

    return TritonKernels(tiles=Tiles(**of_operations, outputs=16))


@dataclass(frozen=True)
class Case:
    """Inputs of all operations; `to` gives the same values in another precision."""

    grid: Grid
    maps: Tensor
    pointwise: Tensor
    convolution: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor
    results: Tensor
    grad: Tensor
    a: Tensor
    b: Tensor
    into: Tensor
    into_a: Tensor
    into_b: Tensor
    pooled_grad: Tensor

    def to(self, dtype: torch.dtype) -> "Case":
        statistics = statistics_dtype(dtype)
        kept = {"mean", "var", "weight", "bias", "a", "b", "into_a", "into_b"}
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved = {name: value.to(statistics if name in kept else dtype) for name, value in tensors.items()}
        return replace(self, **moved)

    def norm(self, *, of_batch=True) -> Norm:
        return Norm(Moments(self.mean, self.var), self.weight, self.bias, 1e-5, of_batch)

    def gradient(self) -> Gradient:
        return Gradient(self.grad, self.a, self.b)

    def source(self) -> Source:
        return Source(self.results, self.results_mean())

    def results_mean(self) -> Tensor:
        return self.a * 3

    def fresh_into(self) -> Gradient:
        return Gradient(*(part.clone() for part in (self.into, self.into_a, self.into_b)))


def case(grid: Grid, dtype: torch.dtype, device, *, num_inputs=23, num_outputs=20) -> Case:
    """Random inputs that `dtype` holds exactly. Maps and gradients are columns in the middle of wider matrices."""
    generator = torch.Generator().manual_seed(FACTOR_SEED)

    def random(*shape: int, scale=1.0) -> Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        return values.to(dtype).double().to(device)

    def pitched(rows: int, columns: int) -> Tensor:
        return random(rows, columns + 11)[:, 3 : 3 + columns]

    groups, rows = grid.num_groups, grid.num_rows
    mean = random(groups, num_inputs, scale=0.5)
    return Case(
        grid=grid,
        maps=pitched(rows, num_inputs) + 0.3,
        pointwise=random(num_outputs, num_inputs, scale=num_inputs**-0.5),
        convolution=random(num_outputs, num_inputs, 3, 3, scale=num_inputs**-0.5 / 3),
        weight=random(num_inputs),
        bias=random(num_inputs),
        mean=mean,
        var=random(groups, num_inputs).square() + 0.5,
        results=pitched(rows, num_outputs),
        grad=pitched(rows, num_outputs),
        a=random(groups, num_outputs, scale=0.1),
        b=random(groups, num_outputs, scale=0.1),
        into=pitched(rows, num_inputs),
        into_a=random(groups, num_inputs, scale=0.1),
        into_b=random(groups, num_inputs, scale=0.1),
        pooled_grad=random(grid.pooled().num_rows, num_inputs),
    )


def error(result: Tensor, exact: Tensor) -> float:
    return float((result.double() - exact).norm() / exact.norm().clamp(min=1e-300))


def assert_as_exact_as_plain(kernels, inputs: Case, dtype: torch.dtype, operation) -> None:
    """operation(kernels, case): named results."""
    exact = operation(PlainKernels(), inputs.to(torch.float64))
    plain = operation(PlainKernels(), inputs.to(dtype))
    ours = operation(kernels, inputs.to(dtype))
    assert ours.keys() == exact.keys()
    for name, value in ours.items():
        assert value.shape == exact[name].shape, name
        assert value.isfinite().all(), name
        bound = MARGIN * max(error(plain[name], exact[name]), SPACING)
        assert error(value, exact[name]) <= bound, f"{name}: {error(value, exact[name]):.3g}, at most {bound:.3g}"


def written(inputs: Case, num_rows: int, num_channels: int) -> tuple[Tensor, Moments]:
    """Somewhere to write results and moments to, full of what must be overwritten, or stay where groups are empty."""
    out = torch.full((num_rows, num_channels + 5), 77.0, dtype=inputs.maps.dtype, device=inputs.maps.device)
    moments = torch.full((2, inputs.grid.num_groups, num_channels), 88.0, dtype=inputs.mean.dtype, device=out.device)
    return out[:, 2 : 2 + num_channels], Moments(*moments)


def of_groups_with_images(moments: Moments, grid: Grid) -> dict[str, Tensor]:
    """The moments, less those that must have stayed as `written` left them."""
    empty = torch.tensor([size == 0 for size in grid.group_sizes], device=moments.mean.device)
    assert (torch.stack(moments)[:, empty] == 88.0).all()
    return {name: part[~empty] for name, part in moments._asdict().items()}


def parts_of(into: Gradient) -> dict[str, Tensor]:
    return {"into": into.grad, "a": into.a, "b": into.b}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", [GRID, ONE_GROUP])
def test_moments(device, grid, dtype):
    def operation(kernels, inputs):
        _, moments = written(inputs, grid.num_rows, inputs.maps.shape[1])
        kernels.moments(inputs.maps, moments, grid)
        return of_groups_with_images(moments, grid)

    assert_as_exact_as_plain(small_kernels(), case(grid, dtype, device), dtype, operation)


def test_moments_of_values_far_from_zero_lose_nothing(device):
    inputs = case(ONE_GROUP, torch.float32, device)
    maps = (inputs.maps + 1e4).float()
    kernels, results = small_kernels(), torch.empty((2, 1, maps.shape[1]), device=device)
    kernels.moments(maps, Moments(*results), ONE_GROUP)
    expected = torch.var_mean(maps.double(), dim=0, correction=0)
    torch.testing.assert_close(results[1, 0].double(), expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(results[0, 0].double(), expected[1], rtol=1e-7, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_variance_of_large_values_that_are_all_alike_is_never_negative(device, dtype):
    grid = Grid(group_sizes=(9,), height=7, width=7, num_values=(441,))
    maps = torch.linspace(100.3, 3000.7, 40).repeat(grid.num_rows, 1).to(device, dtype)
    results = torch.empty((2, 1, 40), device=device)
    small_kernels().moments(maps, Moments(*results), grid)
    assert (results[1] >= 0).all()
    torch.testing.assert_close(results[0, 0], maps[0].float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", [GRID, ONE_GROUP])
@pytest.mark.parametrize("name", ["pointwise", "convolve"])
def test_forward(device, kernels, grid, dtype, name):
    def operation(kernels, inputs):
        weight = inputs.pointwise if name == "pointwise" else inputs.convolution
        out, moments = written(inputs, grid.num_rows, weight.shape[0])
        getattr(kernels, name)(inputs.maps, inputs.norm(), weight, out, moments, grid)
        without_moments, _ = written(inputs, grid.num_rows, weight.shape[0])
        getattr(kernels, name)(inputs.maps, inputs.norm(), weight, without_moments, None, grid)
        assert torch.equal(out, without_moments)
        return {"out": out, **of_groups_with_images(moments, grid)}

    assert_as_exact_as_plain(kernels, case(grid, dtype, device), dtype, operation)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("add", "of_batch", "num_outputs"), [(False, True, 12), (True, True, 36), (False, False, 36)])
@pytest.mark.parametrize("name", ["pointwise", "convolve"])
def test_backward(device, kernels, dtype, add, of_batch, name, num_outputs):

    def operation(kernels, inputs):
        weight = inputs.pointwise if name == "pointwise" else inputs.convolution
        into = inputs.fresh_into()
        grads = getattr(kernels, f"{name}_backward")(
            inputs.gradient(),
            inputs.source(),
            inputs.maps,
            inputs.norm(of_batch=of_batch),
            weight,
            into,
            inputs.grid,
            add=add,
        )
        if not (of_batch or add):
            assert not into.a.any()
            assert not into.b.any()
        return {**grads._asdict(), **parts_of(into)}

    assert_as_exact_as_plain(kernels, case(GRID, dtype, device, num_outputs=num_outputs), dtype, operation)


@pytest.mark.parametrize("dtype", DTYPES)
def test_finish(device, dtype):
    def operation(kernels, inputs):
        return {"finished": kernels.finish(inputs.gradient(), inputs.source(), inputs.grid)}

    assert_as_exact_as_plain(small_kernels(), case(GRID, dtype, device), dtype, operation)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pool", [False, True])
def test_activate_there_and_back(device, dtype, pool):
    def operation(kernels, inputs):
        num_rows = (GRID.pooled() if pool else GRID).num_rows
        out, _ = written(inputs, num_rows, inputs.maps.shape[1])
        kernels.activate(inputs.maps, inputs.norm(), out, GRID, pool=pool)
        into = inputs.fresh_into()
        grad = inputs.pooled_grad if pool else inputs.into
        weight_grad, bias_grad = kernels.activate_backward(grad, inputs.maps, inputs.norm(), into, GRID, pool=pool)
        return {"out": out, "weight": weight_grad, "bias": bias_grad, **parts_of(into)}

    assert_as_exact_as_plain(small_kernels(), case(GRID, dtype, device), dtype, operation)


@pytest.mark.parametrize("pool", [False, True])
def test_what_is_no_number_stays_so(device, kernels, pool):
    inputs = case(GRID, torch.float32, device).to(torch.float32)
    inputs.maps[0, 1] = torch.nan
    results = []
    for implementation in (kernels, PlainKernels()):
        out, _ = written(inputs, (GRID.pooled() if pool else GRID).num_rows, inputs.maps.shape[1])
        implementation.activate(inputs.maps, inputs.norm(), out, GRID, pool=pool)
        results.append(out.isnan())
    assert results[0][0, 1]
    assert torch.equal(*results)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("name", ["pointwise", "convolve"])
def test_no_images_change_nothing(device, kernels, name, add):
    inputs = case(EMPTY, torch.float32, device).to(torch.float32)
    weight = inputs.pointwise if name == "pointwise" else inputs.convolution
    out, moments = written(inputs, 0, weight.shape[0])
    getattr(kernels, name)(inputs.maps, inputs.norm(), weight, out, moments, EMPTY)
    assert (torch.stack(moments) == 88.0).all()
    into = inputs.fresh_into()
    grads = getattr(kernels, f"{name}_backward")(
        inputs.gradient(), inputs.source(), inputs.maps, inputs.norm(), weight, into, EMPTY, add=add
    )
    assert all(not grad.any() for grad in grads)
    assert torch.equal(into.a, inputs.into_a if add else torch.zeros_like(into.a))
    pooled, _ = written(inputs, 0, inputs.maps.shape[1])
    kernels.activate(inputs.maps, inputs.norm(), pooled, EMPTY, pool=True)
    assert kernels.finish(inputs.gradient(), inputs.source(), EMPTY).shape == (0, 20)


def test_double_precision_goes_the_plain_way(device, kernels):
    inputs = case(GRID, torch.float64, device)
    results = []
    for implementation in (kernels, PlainKernels()):
        out, moments = written(inputs, GRID.num_rows, 20)
        implementation.convolve(inputs.maps, inputs.norm(), inputs.convolution, out, moments, GRID)
        results.append((out, *moments))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_the_gradients_of_a_layer_too_wide_for_a_program_are_plain(device, kernels):
    inputs = case(ONE_GROUP, torch.float32, device, num_outputs=260).to(torch.float32)
    found = []
    for implementation in (kernels, PlainKernels()):
        into = inputs.fresh_into()
        grads = implementation.pointwise_backward(
            inputs.gradient(), inputs.source(), inputs.maps, inputs.norm(), inputs.pointwise, into, ONE_GROUP, add=True
        )
        found.append((*grads, *into))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_results_are_the_same_bits_on_every_run(device, kernels):
    def once() -> Iterator[Tensor]:
        inputs = case(GRID, torch.float32, device).to(torch.float32)
        into = inputs.fresh_into()
        yield from kernels.convolve_backward(
            inputs.gradient(), inputs.source(), inputs.maps, inputs.norm(), inputs.convolution, into, GRID, add=True
        )
        yield from into

    assert all(torch.equal(*pair) for pair in zip(once(), once(), strict=True))
