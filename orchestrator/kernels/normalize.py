"""Pixels as a loader hands them over, made into what a network takes, in one pass over memory."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from orchestrator.kernels.arithmetic import rounded

_BLOCK = 1024
_CHANNELS = tl.constexpr(3)


@triton.jit
def _mix_kernel(
    images,
    scale,
    shift,
    out,
    num_values,
    num_pixels,
    scale_stride,
    shift_stride,
    MIXES: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK values, which follow one another in memory, of one image."""
    image = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < num_values
    channel = at % _CHANNELS
    pixel = at // _CHANNELS
    values = images + image * num_values
    factors = scale + image * scale_stride + channel * _CHANNELS
    shifts = tl.load(shift + image * shift_stride + channel, mask=inside, other=0.0)
    if MIXES:
        mixed = shifts
        for source in tl.static_range(3):
            value = tl.load(values + pixel * _CHANNELS + source, mask=inside, other=0).to(tl.float32)
            mixed += value * tl.load(factors + source, mask=inside, other=0.0)
    else:
        value = tl.load(values + at, mask=inside, other=0).to(tl.float32)
        mixed = value * tl.load(factors + channel, mask=inside, other=0.0) + shifts
    place = at if CHANNELS_LAST else channel * num_pixels + pixel
    tl.store(out + image * num_values + place, rounded(mixed, out.dtype.element_ty), mask=inside)


@triton.jit
def _sum_kernel(images, sums, num_pixels, BLOCK: tl.constexpr):
    """One program: the sums of BLOCK pixels of one image, channel by channel; whole numbers, so exact."""
    image = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = images + image * num_pixels * _CHANNELS + at * _CHANNELS
    row = (image * tl.num_programs(0) + tl.program_id(0)) * _CHANNELS
    for channel in tl.static_range(3):
        value = tl.load(values + channel, mask=at < num_pixels, other=0).to(tl.int32)
        tl.store(sums + row + channel, tl.sum(value))


def mix_channels(
    images_nhwc: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    mixes: bool,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    """Of every pixel x, scale @ x + shift, computed in float32 and rounded once: [n, 3, h, w].

    images_nhwc: uint8[n, h, w, 3]. scale: float32[n, 3, 3] and shift: float32[n, 3], or one of each for all images.
    mixes: whether any scale has anything beside its diagonal.
    """
    images_nhwc = images_nhwc.contiguous()
    n, height, width, _ = images_nhwc.shape
    out = torch.empty((n, 3, height, width), dtype=dtype, device=images_nhwc.device, memory_format=memory_format)
    num_pixels = height * width
    if out.numel():
        _mix_kernel[(triton.cdiv(3 * num_pixels, _BLOCK), n)](
            images_nhwc,
            scale.contiguous(),
            shift.contiguous(),
            out,
            3 * num_pixels,
            num_pixels,
            9 if len(scale) > 1 else 0,
            3 if len(shift) > 1 else 0,
            MIXES=mixes,
            CHANNELS_LAST=memory_format is torch.channels_last,
            BLOCK=_BLOCK,
        )
    return out


def channel_sums(images_nhwc: Tensor) -> Tensor:
    """Of every image the sum of each channel's values: int64[n, 3]. images_nhwc: uint8[n, h, w, 3]."""
    images_nhwc = images_nhwc.contiguous()
    n, height, width, _ = images_nhwc.shape
    num_blocks = triton.cdiv(height * width, _BLOCK)
    sums = torch.empty((n, num_blocks, 3), dtype=torch.int32, device=images_nhwc.device)
    if sums.numel():
        _sum_kernel[(num_blocks, n)](images_nhwc, sums, height * width, BLOCK=_BLOCK)
    return sums.sum(1)
