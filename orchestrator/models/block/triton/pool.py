"""The stem's 3x3 max pool, by 2: torch's own takes some ten times as long as reading its maps does.

Forwards the tap that was taken is kept, a byte a result. Backwards each pixel looks whether it was taken by the up to
four windows that it lies in, so nothing is added up out of order.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from orchestrator.kernels.arithmetic import rounded
from orchestrator.models.block.layout import as_rows

_ROWS, _CHANNELS = 32, 64


@triton.jit
def _pool_kernel(
    maps, out, taken, num_places, num_channels, height, width, to_height, to_width,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One program: a tile of results. maps, out, taken: rows of num_channels side by side."""
    places = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (places < num_places)[:, None] & (channels < num_channels)[None, :]
    image = places // (to_height * to_width)
    place = (places % (to_height * to_width)).to(tl.int32)
    best = tl.full((BLOCK_M, BLOCK_C), float("-inf"), tl.float32)
    tap_of_best = tl.zeros((BLOCK_M, BLOCK_C), tl.int32)
    for tap in tl.static_range(9):
        y = place // to_width * 2 + tap // 3 - 1
        x = place % to_width * 2 + tap % 3 - 1
        there = inside & ((y >= 0) & (y < height) & (x >= 0) & (x < width))[:, None]
        rows = (image * height + y) * width + x
        values = tl.load(maps + rows[:, None] * num_channels + channels[None, :], mask=there, other=float("-inf"))
        values = values.to(tl.float32)
        takes = (values > best) | (values != values)
        best = tl.where(takes, values, best)
        tap_of_best = tl.where(takes, tap, tap_of_best)
    at = places[:, None] * num_channels + channels[None, :]
    tl.store(out + at, rounded(best, out.dtype.element_ty), mask=inside)
    tl.store(taken + at, tap_of_best.to(tl.uint8), mask=inside)


@triton.jit
def _spread_kernel(
    grad, taken, out, num_rows, num_channels, height, width, to_height, to_width,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One program: a tile of the pixels' gradient. grad, taken: as `_pool_kernel`'s out and taken."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (rows < num_rows)[:, None] & (channels < num_channels)[None, :]
    image = rows // (height * width)
    pixel = (rows % (height * width)).to(tl.int32)
    y = pixel // width
    x = pixel % width
    total = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for window in tl.static_range(4):
        # An odd row is the last of the window above it and the first of the one below; an even one the middle of one.
        to_y = y // 2 + window // 2
        to_x = x // 2 + window % 2
        tap = (y - 2 * to_y + 1) * 3 + x - 2 * to_x + 1
        seen = (to_y < to_height) & (to_x < to_width) & (y - 2 * to_y >= -1) & (x - 2 * to_x >= -1)
        there = inside & seen[:, None]
        at = ((image * to_height + to_y) * to_width + to_x)[:, None] * num_channels + channels[None, :]
        upstream = tl.load(grad + at, mask=there, other=0.0).to(tl.float32)
        total += tl.where(tl.load(taken + at, mask=there, other=255).to(tl.int32) == tap[:, None], upstream, 0.0)
    at_out = out + rows[:, None] * num_channels + channels[None, :]
    tl.store(at_out, rounded(total, out.dtype.element_ty), mask=inside)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        n, channels, height, width = maps.shape
        to_height, to_width = (height + 1) // 2, (width + 1) // 2
        out = _channels_last((n, channels, to_height, to_width), maps)
        taken = torch.empty_like(out, dtype=torch.uint8)
        sizes = (channels, height, width, to_height, to_width)
        if out.numel():
            _pool_kernel[_programs(out)](
                as_rows(maps), out, taken, n * to_height * to_width, *sizes, BLOCK_M=_ROWS, BLOCK_C=_CHANNELS
            )
        ctx.save_for_backward(taken)
        ctx.sizes = sizes
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> Tensor:
        (taken,) = ctx.saved_tensors
        channels, height, width, *_ = ctx.sizes
        grad = _channels_last((len(taken), channels, height, width), grad_out)
        if grad.numel():
            num_rows = len(taken) * height * width
            _spread_kernel[_programs(grad)](
                as_rows(grad_out), taken, grad, num_rows, *ctx.sizes, BLOCK_M=_ROWS, BLOCK_C=_CHANNELS
            )
        return grad


def _channels_last(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _programs(images: Tensor) -> tuple[int, int]:
    n, channels, height, width = images.shape
    return triton.cdiv(n * height * width, _ROWS), triton.cdiv(channels, _CHANNELS)


def max_pool(maps: Tensor) -> Tensor:
    """torch's max_pool2d(maps, 3, stride=2, padding=1) of maps [n, c, h, w]; the result has channels_last layout."""
    pooled: Tensor = _MaxPool.apply(maps)
    return pooled
