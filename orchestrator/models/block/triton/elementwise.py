"""Operations that touch every value once: norm and ReLU with or without pooling, their backward pass, and `finish`."""

import triton
import triton.language as tl

from orchestrator.kernels.arithmetic import rounded
from orchestrator.models.block.triton.moments import folded
from orchestrator.models.block.triton.norm import load_norm, relu


@triton.jit
def activate_kernel(
    maps,
    maps_pitch,
    mean,
    mean_pitch,
    var,
    var_pitch,
    norm_weight,
    norm_bias,
    eps,
    out,
    out_pitch,
    bounds,
    num_channels,
    height,
    width,
    POOL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program: a tile of results of one group. bounds: of the results' rows."""
    group = tl.program_id(2)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    rows = tl.load(bounds + group) + tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = (rows < tl.load(bounds + group + 1))[:, None] & (channels < num_channels)[None, :]
    means, scale, shift = load_norm(
        mean, mean_pitch, var, var_pitch, norm_weight, norm_bias, eps, group, channels, num_channels
    )
    if POOL:
        pooled_width = width // 2
        pooled_pixels = (height // 2) * pooled_width
        pixel = rows % pooled_pixels
        corner = (rows // pooled_pixels) * (height * width)
        corner += (pixel // pooled_width) * (2 * width) + (pixel % pooled_width) * 2
        total = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
        for quarter in tl.static_range(4):
            sources = corner + (quarter // 2) * width + quarter % 2
            values = tl.load(maps + sources[:, None] * maps_pitch + channels[None, :], mask=inside, other=0.0)
            total += relu((values.to(tl.float32) - means[None, :]) * scale[None, :] + shift[None, :])
        result = total * 0.25
    else:
        values = tl.load(maps + rows[:, None] * maps_pitch + channels[None, :], mask=inside, other=0.0)
        result = relu((values.to(tl.float32) - means[None, :]) * scale[None, :] + shift[None, :])
    tl.store(out + rows[:, None] * out_pitch + channels[None, :], rounded(result, out.dtype.element_ty), mask=inside)


@triton.jit
def activate_backward_kernel(
    grad,
    grad_pitch,
    maps,
    maps_pitch,
    mean,
    mean_pitch,
    var,
    var_pitch,
    norm_weight,
    norm_bias,
    eps,
    into,
    into_pitch,
    partial_sums,
    bounds,
    num_channels,
    height,
    width,
    POOL: tl.constexpr,
    ADD: tl.constexpr,
    STAGES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    LANES: tl.constexpr,
):
    """One program: some channels of every so-many-th tile of a group's rows. bounds: of the maps' rows.

    LANES: among how many lanes a column is divided.
    """
    group = tl.program_id(2)
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channels < num_channels
    first = tl.load(bounds + group)
    last = tl.load(bounds + group + 1)
    means, scale, shift = load_norm(
        mean, mean_pitch, var, var_pitch, norm_weight, norm_bias, eps, group, channels, num_channels
    )
    sum_of_grad = tl.zeros((1, LANES, BLOCK_C), tl.float32)
    sum_with_centred = tl.zeros((1, LANES, BLOCK_C), tl.float32)
    for tile in tl.range(tl.program_id(1), tl.cdiv(last - first, BLOCK_M), tl.num_programs(1), num_stages=STAGES):
        rows = first + tile * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = rows < last
        within = inside[:, None] & known[None, :]
        centred = tl.load(maps + rows[:, None] * maps_pitch + channels[None, :], mask=within, other=0.0)
        centred = centred.to(tl.float32) - means[None, :]
        if POOL:
            pixel = rows % (height * width)
            y = pixel // width // 2
            x = pixel % width // 2
            pooled_width = width // 2
            pooled_height = height // 2
            places = (rows // (height * width)) * (pooled_height * pooled_width) + y * pooled_width + x
            there = within & ((y < pooled_height) & (x < pooled_width))[:, None]
            upstream = tl.load(grad + places[:, None] * grad_pitch + channels[None, :], mask=there, other=0.0)
            upstream = upstream.to(tl.float32) * 0.25
        else:
            upstream = tl.load(grad + rows[:, None] * grad_pitch + channels[None, :], mask=within, other=0.0)
            upstream = upstream.to(tl.float32)
        passed = tl.where(centred * scale[None, :] + shift[None, :] <= 0.0, 0.0, upstream)
        sum_of_grad += folded(passed, BLOCK_M // LANES, LANES)
        sum_with_centred += folded(passed * centred, BLOCK_M // LANES, LANES)
        at_into = into + rows[:, None] * into_pitch + channels[None, :]
        passed = passed * scale[None, :]
        if ADD:
            passed += tl.load(at_into, mask=within, other=0.0).to(tl.float32)
        tl.store(at_into, rounded(passed, into.dtype.element_ty), mask=within)
    part = (group * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    at_sums = partial_sums + part * 2 * num_channels + channels
    tl.store(at_sums, tl.sum(tl.sum(sum_of_grad, 0), 0), mask=known)
    tl.store(at_sums + num_channels, tl.sum(tl.sum(sum_with_centred, 0), 0), mask=known)


@triton.jit
def finish_kernel(
    grad,
    grad_pitch,
    a,
    a_pitch,
    b,
    b_pitch,
    source,
    source_pitch,
    source_mean,
    source_mean_pitch,
    out,
    bounds,
    num_channels,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program: a tile of one group's rows. out: [rows, num_channels]."""
    group = tl.program_id(2)
    channels = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    rows = tl.load(bounds + group) + tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = (rows < tl.load(bounds + group + 1))[:, None] & (channels < num_channels)[None, :]
    known = channels < num_channels
    constant = tl.load(a + group * a_pitch + channels, mask=known, other=0.0)
    slope = tl.load(b + group * b_pitch + channels, mask=known, other=0.0)
    mean = tl.load(source_mean + group * source_mean_pitch + channels, mask=known, other=0.0)
    upstream = tl.load(grad + rows[:, None] * grad_pitch + channels[None, :], mask=inside, other=0.0).to(tl.float32)
    values = tl.load(source + rows[:, None] * source_pitch + channels[None, :], mask=inside, other=0.0).to(tl.float32)
    result = upstream - constant[None, :] - (values - mean[None, :]) * slope[None, :]
    tl.store(out + rows[:, None] * num_channels + channels[None, :], rounded(result, out.dtype.element_ty), mask=inside)
