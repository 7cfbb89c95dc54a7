"""Norm and ReLU of maps outside of dense blocks: of the stem, of transitions and behind the last block."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from orchestrator.models.block.groups import Grouped, SharedGroup, shared_group_of
from orchestrator.models.block.kernels import Gradient, Grid, Kernels, Moments, Source, statistics_dtype
from orchestrator.models.block.layout import as_images, as_rows, compute_dtype, noted_moments
from orchestrator.models.block.select import kernels_of
from orchestrator.models.block.statistics import NormMoments, NormSettings, uses_batch_moments


class NormReLU2d(nn.BatchNorm2d, Grouped):
    """A batch norm with the ReLU behind it; the result has channels_last layout."""

    process_group: dist.ProcessGroup | None = None
    """The ranks that share each group of images."""

    def forward(self, input: Tensor) -> Tensor:
        """input: [n, c, h, w]; the same shape."""
        return norm_relu(self, input, grouped=self, pool=False)


def norm_relu(norm: nn.BatchNorm2d, features: Tensor, *, grouped: Grouped, pool: bool) -> Tensor:
    """relu(norm(features)), or its 2x2 averages, by the groups of `grouped`; updates norm's running statistics.

    features: [n, c, h, w]. The result is in autocast's precision, where that is on.
    """
    shared = shared_group_of(norm)
    grid = grouped.grid(features, shared)
    dtype = compute_dtype(features)
    moments = noted_moments(features)
    call = _Call(
        grid=grid,
        kernels=kernels_of(features.device),
        shared=shared,
        settings=NormSettings.of(norm, grid),
        moments=moments or Moments.zeros(grid, norm.num_features, statistics_dtype(dtype), features.device),
        to_be_taken=moments is None and uses_batch_moments(norm),
        pool=pool,
    )
    result: Tensor = _Activation.apply(call, features.to(dtype), norm.weight, norm.bias)
    batch = NormMoments(call.moments)
    batch.belong(norm, 0, norm.num_features)
    batch.update_running(grid)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One forward pass: all that isn't differentiated."""

    grid: Grid
    kernels: Kernels
    shared: SharedGroup
    settings: NormSettings
    moments: Moments
    to_be_taken: bool
    pool: bool


class _Activation(torch.autograd.Function):
    """Norm, ReLU and, if asked for, the average of each 2x2 pixels."""

    @staticmethod
    def forward(ctx: Any, call: _Call, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        maps = as_rows(features)
        if call.to_be_taken:
            call.kernels.moments(maps, call.moments, call.grid)
            call.shared.join_moments(call.moments, call.grid)
        out_grid = call.grid.pooled() if call.pool else call.grid
        out = maps.new_empty(out_grid.num_rows, maps.shape[1])
        norm = call.settings.norm(call.moments, weight, bias)
        call.kernels.activate(maps, norm, out, call.grid, pool=call.pool)
        ctx.call = call
        ctx.save_for_backward(features, weight, bias)
        return as_images(out, out_grid)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        features, weight, bias = ctx.saved_tensors
        maps = as_rows(features)
        norm = call.settings.norm(call.moments, weight, bias)
        into = Gradient(
            torch.empty_like(maps), torch.empty_like(norm.moments.mean), torch.empty_like(norm.moments.mean)
        )
        grad = as_rows(grad_output)
        norm_gradients = call.kernels.activate_backward(grad, maps, norm, into, call.grid, pool=call.pool)
        call.shared.join_sums(into)
        finished = call.kernels.finish(into, Source(maps, call.moments.mean), call.grid)
        return None, as_images(finished, call.grid), *(gradient.to(weight.dtype) for gradient in norm_gradients)
