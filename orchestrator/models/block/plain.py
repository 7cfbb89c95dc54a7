"""The fused block's operations in plain PyTorch: what they mean, and what runs where nothing faster does."""

import torch
import torch.nn.functional as F
from torch import Tensor

from orchestrator.models.block.kernels import (
    Gradient,
    Grid,
    Moments,
    Norm,
    ParameterGradients,
    Source,
    statistics_dtype,
)
from orchestrator.models.block.layout import as_images, as_rows


class PlainKernels:
    """`Kernels` for any device and dtype, group by group."""

    name = "plain"
    compile_s = 0.0

    def moments(self, maps: Tensor, moments: Moments, grid: Grid) -> None:
        """See `Kernels`."""
        for group, rows in _groups(grid):
            var, mean = torch.var_mean(maps[rows].to(moments.mean.dtype), dim=0, correction=0)
            moments.mean[group] = mean
            moments.var[group] = var

    def pointwise(
        self, maps: Tensor, norm: Norm, weight: Tensor, out: Tensor, moments: Moments | None, grid: Grid
    ) -> None:
        """See `Kernels`."""
        torch.mm(_activated(maps, norm, grid), weight.t(), out=out)
        if moments is not None:
            self.moments(out, moments, grid)

    def convolve(
        self, maps: Tensor, norm: Norm, weight: Tensor, out: Tensor, moments: Moments | None, grid: Grid
    ) -> None:
        """See `Kernels`."""
        activated = as_images(_activated(maps, norm, grid), grid)
        out.copy_(as_rows(F.conv2d(activated, weight, padding=1)))
        if moments is not None:
            self.moments(out, moments, grid)

    def activate(self, maps: Tensor, norm: Norm, out: Tensor, grid: Grid, *, pool: bool) -> None:
        """See `Kernels`."""
        activated = _activated(maps, norm, grid)
        if pool:
            activated = as_rows(F.avg_pool2d(as_images(activated, grid), 2))
        out.copy_(activated)

    def finish(self, gradient: Gradient, source: Source, grid: Grid) -> Tensor:
        """See `Kernels`."""
        finished = torch.empty_like(gradient.grad, memory_format=torch.contiguous_format)
        for group, rows in _groups(grid):
            centred = source.maps[rows].to(gradient.b.dtype) - source.mean[group]
            finished[rows] = (gradient.grad[rows] - gradient.a[group] - centred * gradient.b[group]).to(finished.dtype)
        return finished

    def pointwise_backward(
        self,
        gradient: Gradient,
        source: Source,
        maps: Tensor,
        norm: Norm,
        weight: Tensor,
        into: Gradient,
        grid: Grid,
        *,
        add: bool,
    ) -> ParameterGradients:
        """See `Kernels`."""
        grad_out = self.finish(gradient, source, grid)
        grad_weight = grad_out.t() @ _activated(maps, norm, grid)
        norm_gradients = _through_norm(grad_out @ weight, maps, norm, into, grid, add=add)
        return ParameterGradients(*norm_gradients, grad_weight)

    def convolve_backward(
        self,
        gradient: Gradient,
        source: Source,
        maps: Tensor,
        norm: Norm,
        weight: Tensor,
        into: Gradient,
        grid: Grid,
        *,
        add: bool,
    ) -> ParameterGradients:
        """See `Kernels`."""
        grad_out = as_images(self.finish(gradient, source, grid), grid)
        activated = as_images(_activated(maps, norm, grid), grid)
        grad_activated, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad_out, activated, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]
        )
        norm_gradients = _through_norm(as_rows(grad_activated), maps, norm, into, grid, add=add)
        return ParameterGradients(*norm_gradients, grad_weight)

    def activate_backward(
        self, grad: Tensor, maps: Tensor, norm: Norm, into: Gradient, grid: Grid, *, pool: bool
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        if pool:
            size = (grid.num_images, maps.shape[1], grid.height, grid.width)
            spread = grad.new_empty(size).to(memory_format=torch.channels_last).zero_()
            pooled = as_images(grad, grid.pooled())
            even = spread[:, :, : grid.height // 2 * 2, : grid.width // 2 * 2]
            even.copy_((pooled / 4).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
            grad = as_rows(spread)
        return _through_norm(grad, maps, norm, into, grid, add=False)


def _groups(grid: Grid) -> list[tuple[int, slice]]:
    """The number and the rows of each group that isn't empty."""
    bounds = grid.row_bounds
    return [(group, slice(bounds[group], bounds[group + 1])) for group, size in enumerate(grid.group_sizes) if size > 0]


def _normalised(maps: Tensor, norm: Norm, group: int) -> Tensor:
    """maps: the group's rows alone. In the moments' dtype."""
    scale = (norm.moments.var[group] + norm.eps).rsqrt() * norm.weight
    return (maps.to(scale.dtype) - norm.moments.mean[group]) * scale + norm.bias


def _activated(maps: Tensor, norm: Norm, grid: Grid) -> Tensor:
    """relu(norm(maps)), side by side."""
    activated = torch.empty_like(maps, memory_format=torch.contiguous_format)
    for group, rows in _groups(grid):
        activated[rows] = F.relu(_normalised(maps[rows], norm, group)).to(maps.dtype)
    return activated


def _through_norm(
    grad_activated: Tensor, maps: Tensor, norm: Norm, into: Gradient, grid: Grid, *, add: bool
) -> tuple[Tensor, Tensor]:
    """Backwards through ReLU and norm, but for what depends on all values of a group: that goes to `into`'s a and b."""
    dtype = statistics_dtype(maps.dtype)
    grad_weight, grad_bias = torch.zeros(2, maps.shape[1], dtype=dtype, device=maps.device).unbind()
    if not add:
        for part in into:
            part.zero_()
    for group, rows in _groups(grid):
        inverse_std = (norm.moments.var[group] + norm.eps).rsqrt()
        scale = inverse_std * norm.weight
        grad = grad_activated[rows].to(dtype) * (_normalised(maps[rows], norm, group) > 0)
        sum_of_grad = grad.sum(0)
        sum_with_centred = (grad * (maps[rows].to(dtype) - norm.moments.mean[group])).sum(0)
        grad_bias += sum_of_grad
        grad_weight += sum_with_centred * inverse_std
        into.grad[rows] += (scale * grad).to(into.grad.dtype)
        if norm.of_batch:
            into.a[group] += scale * sum_of_grad / grid.num_values[group]
            into.b[group] += scale * inverse_std.square() * sum_with_centred / grid.num_values[group]
    return grad_weight, grad_bias
