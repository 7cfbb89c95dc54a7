"""Convolutions of what norm and ReLU make of maps: 1x1 and 3x3 by one kernel, the latter's pixels gathered tap by tap.

A program keeps a tile of results, [pixels, output channels], and goes over taps and input channels. Norm and ReLU are
applied on the way in; the results' moments are taken on the way out.
"""

import triton
import triton.language as tl

from orchestrator.kernels.arithmetic import multiply_add, rounded
from orchestrator.models.block.triton.moments import merge_tile, store_part
from orchestrator.models.block.triton.norm import load_norm, relu


@triton.jit
def forward_kernel(
    maps,
    maps_pitch,
    mean,
    mean_pitch,
    var,
    var_pitch,
    norm_weight,
    norm_bias,
    eps,
    weight,
    out,
    out_pitch,
    partial,
    bounds,
    num_inputs,
    num_outputs,
    height,
    width,
    TAPS: tl.constexpr,
    HAS_MOMENTS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: some output channels of every so-many-th tile of a group's rows.

    weight: [num_outputs, TAPS, num_inputs].
    """
    group = tl.program_id(2)
    outputs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.load(bounds + group)
    last = tl.load(bounds + group + 1)
    chunks = tl.cdiv(num_inputs, BLOCK_K)
    dtype: tl.constexpr = maps.dtype.element_ty
    count = tl.zeros((BLOCK_N,), tl.float64)
    mean_out = tl.zeros((BLOCK_N,), tl.float64)
    squares = tl.zeros((BLOCK_N,), tl.float64)
    for tile in range(tl.program_id(1), tl.cdiv(last - first, BLOCK_M), tl.num_programs(1)):
        start = first + tile * BLOCK_M
        rows = start + tl.arange(0, BLOCK_M)
        inside = rows < last
        pixel = (rows % (height * width)).to(tl.int32)
        y = pixel // width
        x = pixel % width
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for step in range(0, TAPS * chunks):
            if TAPS == 1:
                inputs = step * BLOCK_K + tl.arange(0, BLOCK_K)
                sources = rows
                seen = inside
                weights = weight + inputs[:, None]
            else:
                tap = step // chunks
                dy = tap // 3 - 1
                dx = tap % 3 - 1
                inputs = (step % chunks) * BLOCK_K + tl.arange(0, BLOCK_K)
                sources = rows + dy * width + dx
                seen = inside & (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
                weights = weight + tap * num_inputs + inputs[:, None]
            known = inputs < num_inputs
            values = tl.load(
                maps + sources[:, None] * maps_pitch + inputs[None, :], mask=seen[:, None] & known[None, :], other=0.0
            )
            means, _, scale, shift = load_norm(
                mean, mean_pitch, var, var_pitch, norm_weight, norm_bias, eps, group, inputs, num_inputs
            )
            activated = relu((values.to(tl.float32) - means[None, :]) * scale[None, :] + shift[None, :])
            if TAPS > 1:
                activated = tl.where(seen[:, None], activated, 0.0)
            factors = tl.load(
                weights + outputs[None, :] * (TAPS * num_inputs),
                mask=known[:, None] & (outputs < num_outputs)[None, :],
                other=0.0,
            )
            total = multiply_add(rounded(activated, dtype), factors, total, PRECISION)
        result = rounded(total, dtype)
        tl.store(
            out + rows[:, None] * out_pitch + outputs[None, :],
            result,
            mask=inside[:, None] & (outputs < num_outputs)[None, :],
        )
        if HAS_MOMENTS:
            num_rows = tl.minimum(last - start, BLOCK_M).to(tl.float32)
            count, mean_out, squares = merge_tile(result.to(tl.float32), inside, num_rows, count, mean_out, squares)
    if HAS_MOMENTS:
        store_part(partial, count, mean_out, squares, outputs, num_outputs)
