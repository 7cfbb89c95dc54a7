"""Compiles every kernel for a GPU that needn't be there: python -m tests.kernels.compile_kernels CAPABILITY DTYPE.

Prints a JSON object: for each kernel and variant the shared memory it takes in bytes. To run nothing, launches are
turned into compilations, and Triton is told of a GPU of that compute capability (90 for Hopper, 80 for Ampere).
"""

import json
import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from orchestrator.kernels import normalize
from orchestrator.models.block.kernels import Gradient, Grid, Moments, Norm, Source
from orchestrator.models.block.triton import TritonKernels
from orchestrator.models.block.triton.pool import max_pool

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
GRID = Grid(group_sizes=(2, 2), height=56, width=56, num_values=(6272, 6272))
VARIANT = ("ADD", "POOL", "COPIES", "MIXES")


class AbsentGpu:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(capability: int, dtype: torch.dtype) -> dict[str, int]:
    """Shared memory of each kernel, as a layer of DenseNet-121 and a transition launch it."""
    shared: dict[str, int] = {}
    run = JITFunction.run

    def compile_only(self: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        del warmup
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        variant = "".join(f" {name}={options[name]}" for name in VARIANT if name in options)
        shared[self.__name__ + variant] = kernel.metadata.shared

    driver.set_active(AbsentGpu(capability))
    JITFunction.run = compile_only
    launch_all(dtype)
    return shared


def launch_all(dtype: torch.dtype) -> None:
    """Every operation, with the sizes of the first block's second layer."""
    kernels, rows = TritonKernels(), GRID.num_rows

    def matrix(columns: int) -> torch.Tensor:
        return torch.empty(rows, columns, dtype=dtype)

    def moments(channels: int) -> Moments:
        return Moments(*torch.empty(2, 2, channels).unbind())

    def gradient(grad: torch.Tensor) -> Gradient:
        return Gradient(grad, *moments(grad.shape[1]))

    def norm(of: Moments) -> Norm:
        return Norm(of, *torch.empty(2, of.mean.shape[1]).unbind(), 1e-5, True)

    maps, bottleneck, grads = matrix(256), matrix(128), matrix(256)
    inputs, known = maps[:, :96], moments(256)
    norm1, norm2 = norm(known.columns(0, 96)), norm(moments(128))
    weight1, weight2 = torch.empty(128, 96, dtype=dtype), torch.empty(32, 128, 3, 3, dtype=dtype)
    kernels.moments(inputs, known.columns(0, 96), GRID)
    kernels._copy(maps[:, :32], maps[:, 96:128], known.columns(96, 128), GRID)
    kernels.pointwise(inputs, norm1, weight1, bottleneck, norm2.moments, GRID)
    kernels.convolve(bottleneck, norm2, weight2, maps[:, 96:128], known.columns(96, 128), GRID)
    added = Source(maps[:, 96:128], known.mean[:, 96:128])
    between = gradient(matrix(128))
    above = gradient(grads[:, 96:128])
    kernels.convolve_backward(above, added, bottleneck, norm2, weight2, between, GRID, add=False)
    source = Source(bottleneck, norm2.moments.mean)
    kernels.pointwise_backward(between, source, inputs, norm1, weight1, gradient(grads[:, :96]), GRID, add=True)
    widest, of_widest = gradient(matrix(256)), moments(256)
    weight = torch.empty(256, 96, dtype=dtype)
    kernels.pointwise_backward(
        widest, Source(widest.grad, of_widest.mean), inputs, norm1, weight, gradient(grads[:, :96]), GRID, add=False
    )
    pooled = torch.empty(GRID.pooled().num_rows, 256, dtype=dtype)
    for pool, results in ((True, pooled), (False, matrix(256))):
        kernels.activate(maps, norm(known), results, GRID, pool=pool)
        kernels.activate_backward(results, maps, norm(known), gradient(grads), GRID, pool=pool)
    pixels = torch.empty(2, 64, 112, 112, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    max_pool(pixels).sum().backward()
    images = torch.empty(2, 32, 32, 3, dtype=torch.uint8)
    normalize.channel_sums(images)
    for mixes in (False, True):
        normalize.mix_channels(
            images,
            torch.empty(2, 3, 3),
            torch.empty(2, 3),
            mixes=mixes,
            dtype=dtype,
            memory_format=torch.channels_last,
        )


if __name__ == "__main__":
    json.dump(compiled(int(sys.argv[1]), DTYPES[sys.argv[2]]), sys.stdout)
