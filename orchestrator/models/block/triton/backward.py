"""Backwards through a convolution, 1x1 or 3x3, and the ReLU and norm before it.

The gradient of the convolution's results is gathered: [pixels, taps x output channels], the narrow side of a layer, so
a 3x3 convolution reads its wide inputs once. With it

    gradient of what went in = gathered @ weight,      gradient of weight = gathered.T @ relu(norm(maps))

A program holds some input channels and goes over its share of a group's rows; what it adds up leaves as a part of its
own, and parts are added in a fixed order afterwards: no atomics, the same bits on every run.
"""

import triton
import triton.language as tl

from orchestrator.kernels.arithmetic import multiply_add, rounded
from orchestrator.models.block.triton.norm import load_norm, relu


@triton.jit
def _gather(
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
    group,
    rows,
    inside,
    columns,
    height,
    width,
    OUTPUTS: tl.constexpr,
    TAPS: tl.constexpr,
    FINISHES: tl.constexpr,
    dtype: tl.constexpr,
):
    """What reaches each row through each column, a pair of tap and output channel: [rows, columns], in `dtype`."""
    tap = columns // OUTPUTS
    outputs = columns % OUTPUTS
    known = columns < TAPS * OUTPUTS
    there = inside[:, None] & known[None, :]
    if TAPS == 1:
        at_grad = grad + rows[:, None] * grad_pitch + outputs[None, :]
        at_source = source + rows[:, None] * source_pitch + outputs[None, :]
    else:
        dy = tap // 3 - 1
        dx = tap % 3 - 1
        pixel = (rows % (height * width)).to(tl.int32)
        to_y = (pixel // width)[:, None] - dy[None, :]
        to_x = (pixel % width)[:, None] - dx[None, :]
        there = there & (to_y >= 0) & (to_y < height) & (to_x >= 0) & (to_x < width)
        places = rows[:, None] - (dy * width + dx)[None, :]
        at_grad = grad + places * grad_pitch + outputs[None, :]
        at_source = source + places * source_pitch + outputs[None, :]
    gathered = tl.load(at_grad, mask=there, other=0.0)
    if FINISHES:
        constant = tl.load(a + group * a_pitch + outputs, mask=known, other=0.0)
        slope = tl.load(b + group * b_pitch + outputs, mask=known, other=0.0)
        mean = tl.load(source_mean + group * source_mean_pitch + outputs, mask=known, other=0.0)
        values = tl.load(at_source, mask=there, other=0.0).to(tl.float32)
        result = gathered.to(tl.float32) - constant[None, :] - (values - mean[None, :]) * slope[None, :]
        gathered = rounded(tl.where(there, result, 0.0), dtype)
    return gathered


@triton.jit
def _load_weight(weight, columns, inputs, num_inputs, OUTPUTS: tl.constexpr, TAPS: tl.constexpr):
    """The weights of columns, pairs of tap and output channel, and input channels: [columns, inputs]."""
    at = ((columns % OUTPUTS) * TAPS + columns // OUTPUTS)[:, None] * num_inputs + inputs[None, :]
    known = (columns < TAPS * OUTPUTS)[:, None] & (inputs < num_inputs)[None, :]
    return tl.load(weight + at, mask=known, other=0.0)


@triton.jit
def backward_kernel(
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
    height,
    width,
    OUTPUTS: tl.constexpr,
    TAPS: tl.constexpr,
    FINISHES: tl.constexpr,
    DATA: tl.constexpr,
    WEIGHTS: tl.constexpr,
    ADD: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    """One program: some input channels of every so-many-th tile of a group's rows.

    OUTPUTS: output channels, the same in all layers of a network. weight: [OUTPUTS, TAPS, num_inputs].
    DATA: write the gradient of maps to `into` and its sums to partial_sums [groups, programs, 2, num_inputs].
    WEIGHTS: write to partial_weight [groups, programs, OUTPUTS, TAPS, num_inputs]. Both at once need a BLOCK_J that
    covers all of TAPS * OUTPUTS; WEIGHTS alone gives BLOCK_J of them to a program.
    FINISHES: whether grad is still to be finished, with a, b and source.
    """
    group = tl.program_id(2)
    num_columns: tl.constexpr = TAPS * OUTPUTS
    column_blocks: tl.constexpr = 1 if DATA else (num_columns + BLOCK_J - 1) // BLOCK_J
    inputs = (tl.program_id(0) // column_blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
    columns = (tl.program_id(0) % column_blocks) * BLOCK_J + tl.arange(0, BLOCK_J)
    known = inputs < num_inputs
    first = tl.load(bounds + group)
    last = tl.load(bounds + group + 1)
    means, _, scale, shift = load_norm(
        mean, mean_pitch, var, var_pitch, norm_weight, norm_bias, eps, group, inputs, num_inputs
    )
    dtype: tl.constexpr = maps.dtype.element_ty
    if DATA and WEIGHTS:
        factors = _load_weight(weight, columns, inputs, num_inputs, OUTPUTS, TAPS)
    sum_of_grad = tl.zeros((BLOCK_K,), tl.float32)
    sum_with_centred = tl.zeros((BLOCK_K,), tl.float32)
    if WEIGHTS:
        weight_grad = tl.zeros((BLOCK_J, BLOCK_K), tl.float32)
    for tile in range(tl.program_id(1), tl.cdiv(last - first, BLOCK_M), tl.num_programs(1)):
        rows = first + tile * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = rows < last
        within = inside[:, None] & known[None, :]
        values = tl.load(maps + rows[:, None] * maps_pitch + inputs[None, :], mask=within, other=0.0)
        centred = values.to(tl.float32) - means[None, :]
        normalised = centred * scale[None, :] + shift[None, :]
        grad_activated = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        if WEIGHTS:
            gathered = _gather(
                grad, grad_pitch, a, a_pitch, b, b_pitch, source, source_pitch, source_mean, source_mean_pitch,
                group, rows, inside, columns, height, width, OUTPUTS, TAPS, FINISHES, dtype,
            )  # fmt: skip
            if DATA:
                grad_activated = multiply_add(gathered, factors, grad_activated, PRECISION)
            activated = rounded(relu(normalised), dtype)
            weight_grad = multiply_add(tl.trans(gathered), activated, weight_grad, PRECISION)
        else:
            for column in range(0, num_columns, BLOCK_J):
                columns = column + tl.arange(0, BLOCK_J)
                gathered = _gather(
                    grad, grad_pitch, a, a_pitch, b, b_pitch, source, source_pitch, source_mean, source_mean_pitch,
                    group, rows, inside, columns, height, width, OUTPUTS, TAPS, FINISHES, dtype,
                )  # fmt: skip
                some_factors = _load_weight(weight, columns, inputs, num_inputs, OUTPUTS, TAPS)
                grad_activated = multiply_add(gathered, some_factors, grad_activated, PRECISION)
        if DATA:
            passed = tl.where(normalised <= 0.0, 0.0, grad_activated)
            sum_of_grad += tl.sum(passed, 0)
            sum_with_centred += tl.sum(passed * centred, 0)
            at_into = into + rows[:, None] * into_pitch + inputs[None, :]
            passed = passed * scale[None, :]
            if ADD:
                passed += tl.load(at_into, mask=within, other=0.0).to(tl.float32)
            tl.store(at_into, rounded(passed, dtype), mask=within)
    part = (group * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    if DATA:
        at_sums = partial_sums + part * 2 * num_inputs + inputs
        tl.store(at_sums, sum_of_grad, mask=known)
        tl.store(at_sums + num_inputs, sum_with_centred, mask=known)
    if WEIGHTS:
        at_weight = partial_weight + part * num_columns * num_inputs
        at_weight += ((columns % OUTPUTS) * TAPS + columns // OUTPUTS)[:, None] * num_inputs + inputs[None, :]
        tl.store(at_weight, weight_grad, mask=(columns < num_columns)[:, None] & known[None, :])


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
        inverse_std = 1.0 / tl.sqrt(tl.load(var + group * var_pitch + channels, mask=known, other=1.0) + eps)
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
