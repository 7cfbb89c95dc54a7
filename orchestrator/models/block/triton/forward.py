"""A 1x1 convolution of what norm and ReLU make of maps.

A program keeps a tile of results, [pixels, output channels], and goes over input channels. Norm and ReLU are applied on
the way in; the results' moments are taken on the way out.
"""

import triton
import triton.language as tl

from orchestrator.kernels.arithmetic import multiply_add, rounded
from orchestrator.models.block.triton.moments import add_tile, store_part
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
    HAS_MOMENTS: tl.constexpr,
    CENTRES: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: some output channels of every so-many-th tile of a group's rows. weight: [num_outputs, num_inputs].

    CENTRES: whether moments are counted from a first mean; what 16 bits round away is more than what that saves.
    """
    group = tl.program_id(2)
    outputs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.load(bounds + group)
    last = tl.load(bounds + group + 1)
    dtype: tl.constexpr = maps.dtype.element_ty
    known_outputs = (outputs < num_outputs)[None, :]
    chunks = tl.cdiv(num_inputs, BLOCK_K)
    tiles = tl.cdiv(tl.maximum(tl.cdiv(last - first, BLOCK_M) - tl.program_id(1), 0), tl.num_programs(1)).to(tl.int32)
    count = last - last  # 0, as whole a number as rows are
    origin = tl.zeros((BLOCK_N,), tl.float32)
    sums = tl.zeros((BLOCK_M // 16, 8, BLOCK_N), tl.float32)
    squares = tl.zeros((BLOCK_M // 16, 8, BLOCK_N), tl.float32)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # One loop over the chunks of all tiles, so that loads of the next tile are underway while one ends.
    for step in tl.range(0, tiles * chunks, num_stages=STAGES):
        start = first + (tl.program_id(1) + (step // chunks) * tl.num_programs(1)) * BLOCK_M
        rows = start + tl.arange(0, BLOCK_M)
        inside = rows < last
        inputs = (step % chunks) * BLOCK_K + tl.arange(0, BLOCK_K)
        known = inputs < num_inputs
        values = tl.load(
            maps + rows[:, None] * maps_pitch + inputs[None, :], mask=inside[:, None] & known[None, :], other=0.0
        )
        means, scale, shift = load_norm(
            mean, mean_pitch, var, var_pitch, norm_weight, norm_bias, eps, group, inputs, num_inputs
        )
        activated = relu((values.to(tl.float32) - means[None, :]) * scale[None, :] + shift[None, :])
        factors = tl.load(
            weight + inputs[:, None] + outputs[None, :] * num_inputs, mask=known[:, None] & known_outputs, other=0.0
        )
        total = multiply_add(rounded(activated, dtype), factors, total, PRECISION)
        if step % chunks == chunks - 1:
            at_out = out + rows[:, None] * out_pitch + outputs[None, :]
            tl.store(at_out, rounded(total, dtype), mask=inside[:, None] & known_outputs)
            if HAS_MOMENTS:
                # In the layout of a product's results a lane has rows 8 apart.
                num_rows = tl.minimum(last - start, BLOCK_M)
                count, origin, sums, squares = add_tile(
                    total, inside, num_rows, count, origin, sums, squares, CENTRES, 2, 8
                )
            total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if HAS_MOMENTS:
        store_part(partial, count, origin, sums, squares, outputs, num_outputs)
