"""Backwards through a 1x1 convolution and the ReLU and norm before it.

With the finished gradient of the convolution's results,

    gradient of what went in = gradient @ weight,      gradient of weight = gradient.T @ relu(norm(maps))

A program holds some input channels and goes over its share of a group's rows; what it adds up leaves as a part of its
own, and parts are added in a fixed order afterwards: no atomics, the same bits on every run.
"""

import triton
import triton.language as tl

from orchestrator.kernels.arithmetic import multiply_add, rounded
from orchestrator.models.block.triton.moments import folded
from orchestrator.models.block.triton.norm import load_norm, relu


@triton.jit
def backward_kernel(
    grad,
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
    into,
    into_pitch,
    partial_sums,
    partial_weight,
    bounds,
    num_inputs,
    num_outputs,
    ADD: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One program: some input channels of every so-many-th tile of a group's rows.

    grad: finished, [rows, num_outputs]. weight: [num_outputs, num_inputs]. BLOCK_N: at least num_outputs.
    Writes the gradient of maps to `into`, its sums to partial_sums [groups, programs, 2, num_inputs] and the gradient
    of the weight to partial_weight [groups, programs, num_outputs, num_inputs].
    """
    group = tl.program_id(2)
    inputs = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    outputs = tl.arange(0, BLOCK_N)
    known = inputs < num_inputs
    known_outputs = outputs < num_outputs
    first = tl.load(bounds + group)
    last = tl.load(bounds + group + 1)
    means, scale, shift = load_norm(
        mean, mean_pitch, var, var_pitch, norm_weight, norm_bias, eps, group, inputs, num_inputs
    )
    dtype: tl.constexpr = maps.dtype.element_ty
    factors = tl.load(
        weight + outputs[:, None] * num_inputs + inputs[None, :],
        mask=known_outputs[:, None] & known[None, :],
        other=0.0,
    )
    sum_of_grad = tl.zeros((BLOCK_M // 16, 8, BLOCK_K), tl.float32)
    sum_with_centred = tl.zeros((BLOCK_M // 16, 8, BLOCK_K), tl.float32)
    weight_grad = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    for tile in tl.range(tl.program_id(1), tl.cdiv(last - first, BLOCK_M), tl.num_programs(1), num_stages=STAGES):
        rows = first + tile * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = rows < last
        within = inside[:, None] & known[None, :]
        upstream = tl.load(
            grad + rows[:, None] * num_outputs + outputs[None, :],
            mask=inside[:, None] & known_outputs[None, :],
            other=0.0,
        )
        zeros = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        grad_activated = multiply_add(upstream, factors, zeros, PRECISION)
        # After the product, so that nothing waits for it in registers.
        values = tl.load(maps + rows[:, None] * maps_pitch + inputs[None, :], mask=within, other=0.0)
        centred = values.to(tl.float32) - means[None, :]
        normalised = centred * scale[None, :] + shift[None, :]
        activated = rounded(relu(normalised), dtype)
        weight_grad = multiply_add(tl.trans(upstream), activated, weight_grad, PRECISION)
        passed = tl.where(normalised <= 0.0, 0.0, grad_activated)
        # In the layout of a product's results a lane has rows 8 apart.
        sum_of_grad += folded(passed, 2, 8)
        sum_with_centred += folded(passed * centred, 2, 8)
        at_into = into + rows[:, None] * into_pitch + inputs[None, :]
        passed = passed * scale[None, :]
        if ADD:
            passed += tl.load(at_into, mask=within, other=0.0).to(tl.float32)
        tl.store(at_into, rounded(passed, dtype), mask=within)
    part = (group * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    at_sums = partial_sums + part * 2 * num_inputs + inputs
    tl.store(at_sums, tl.sum(tl.sum(sum_of_grad, 0), 0), mask=known)
    tl.store(at_sums + num_inputs, tl.sum(tl.sum(sum_with_centred, 0), 0), mask=known)
    # Wider numbers than in the weight's addresses above, or the compiler would keep those in registers for this.
    wide = outputs.to(tl.int64)
    at_weight = partial_weight + part * num_outputs * num_inputs + wide[:, None] * num_inputs + inputs[None, :]
    tl.store(at_weight, weight_grad, mask=(wide < num_outputs)[:, None] & known[None, :])


@triton.jit(do_not_specialize=["num_parts", "num_groups"])
def settle_kernel(
    partial_sums,
    var,
    var_pitch,
    norm_weight,
    eps,
    num_values,
    a,
    a_pitch,
    b,
    b_pitch,
    weight_grad,
    bias_grad,
    num_parts,
    num_groups,
    num_channels,
    OF_BATCH: tl.constexpr,
    ADD: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program: some channels' a and b of each group, and the gradients of their norm's weight and bias."""
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = channels < num_channels
    parts = tl.arange(0, BLOCK_P)
    inside = (parts < num_parts)[:, None] & known[None, :]
    gamma = tl.load(norm_weight + channels, mask=known, other=0.0).to(tl.float32)
    total_weight = tl.zeros((BLOCK_C,), tl.float32)
    total_bias = tl.zeros((BLOCK_C,), tl.float32)
    for group in range(0, num_groups):
        at = partial_sums + (group * num_parts + parts)[:, None] * 2 * num_channels + channels[None, :]
        sum_of_grad = tl.sum(tl.load(at, mask=inside, other=0.0), 0)
        sum_with_centred = tl.sum(tl.load(at + num_channels, mask=inside, other=0.0), 0)
        # A group without values has sums of 0, and moments that may be anything.
        count = tl.load(num_values + group)
        inverse_std = tl.rsqrt(tl.load(var + group * var_pitch + channels, mask=known, other=1.0) + eps)
        inverse_std = tl.where(count > 0.0, inverse_std, 0.0)
        total_bias += sum_of_grad
        total_weight += sum_with_centred * inverse_std
        constant = tl.zeros((BLOCK_C,), tl.float32)
        slope = tl.zeros((BLOCK_C,), tl.float32)
        if OF_BATCH:
            share = inverse_std * gamma / tl.maximum(count, 1.0)
            constant += share * sum_of_grad
            slope += share * inverse_std * inverse_std * sum_with_centred
        at_a = a + group * a_pitch + channels
        at_b = b + group * b_pitch + channels
        if ADD:
            constant += tl.load(at_a, mask=known, other=0.0)
            slope += tl.load(at_b, mask=known, other=0.0)
        tl.store(at_a, constant, mask=known)
        tl.store(at_b, slope, mask=known)
    tl.store(weight_grad + channels, total_weight, mask=known)
    tl.store(bias_grad + channels, total_bias, mask=known)
