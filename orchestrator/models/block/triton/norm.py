"""Batch norm and ReLU as parts of kernels: what stands in a prologue or an epilogue instead of in memory."""

import triton
import triton.language as tl


@triton.jit
def load_norm(mean, mean_pitch, var, var_pitch, weight, bias, eps, group, channels, num_channels):
    """A group's mean, weight / std and bias of some channels, float32; all 0 beyond the last channel."""
    inside = channels < num_channels
    means = tl.load(mean + group * mean_pitch + channels, mask=inside, other=0.0)
    inverse_std = tl.rsqrt(tl.load(var + group * var_pitch + channels, mask=inside, other=1.0) + eps)
    scale = inverse_std * tl.load(weight + channels, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    return means, scale, shift


@triton.jit
def relu(values):
    """Keeps NaN, so that a diverged network is noticed."""
    return tl.maximum(values, 0.0, propagate_nan=tl.PropagateNan.ALL)
