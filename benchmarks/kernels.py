"""What computes 3x3 convolutions fastest on this GPU: Triton, while it reads and normalises, or cuDNN, from memory?

    python benchmarks/kernels.py [--json] [--model densenet169] [--batch 256] [--dtype bf16]

The fused block's operations of each block's middle layer, forwards and backwards, with 4 batch-norm groups: median
times by CUDA events, and the memory traffic that `traffic.py` counts for them, over the time. A ratio is cuDNN's time
over Triton's: above 1 `TritonKernels(convolutions="triton")` is faster.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from common import document, print_document, ratio_of_costs

from orchestrator.models.block.kernels import Gradient, Grid, Moments, Norm, Source
from orchestrator.plan.architecture import BlockShape, DenseNetArchitecture
from orchestrator.plan.networks import find_architecture

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NUM_GROUPS = 4
ROUNDS = 3


def operations(
    kernels: Any, architecture: DenseNetArchitecture, block: BlockShape, grid: Grid, dtype: torch.dtype
) -> Iterator[tuple[str, Callable[[], Any], int]]:
    """(name, what to run, values that it must read and write) of a layer in the middle of a block."""
    growth_rate, width = architecture.growth_rate, architecture.bn_size * architecture.growth_rate
    inputs = block.in_channels + block.num_layers // 2 * growth_rate
    rows = grid.num_rows

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda").to(dtype)

    def moments(channels: int) -> Moments:
        values = torch.rand(2, NUM_GROUPS, channels, device="cuda")
        return Moments(values[0] - 0.5, values[1] + 0.5)

    def norm(channels: int) -> Norm:
        return Norm(moments(channels), *torch.rand(2, channels, device="cuda").unbind(), 1e-5, True)

    def gradient(channels: int) -> Gradient:
        return Gradient(random(rows, channels), *moments(channels))

    maps, bottleneck = random(rows, block.out_channels), random(rows, width)
    read, added = maps[:, :inputs], maps[:, inputs : inputs + growth_rate]
    norm1, norm2, of_added = norm(inputs), norm(width), moments(growth_rate)
    weight1, weight2 = random(width, inputs) / inputs**0.5, random(growth_rate, width, 3, 3) / width**0.5 / 3
    weight2 = weight2.contiguous(memory_format=torch.channels_last)
    above, between, below = gradient(growth_rate), gradient(width), gradient(inputs)
    source1, source2 = Source(bottleneck, norm2.moments.mean), Source(added, of_added.mean)
    yield (
        "1x1",
        lambda: kernels.pointwise(read, norm1, weight1, bottleneck, norm2.moments, grid),
        rows * (inputs + width),
    )
    yield (
        "3x3",
        lambda: kernels.convolve(bottleneck, norm2, weight2, added, of_added, grid),
        rows * (width + growth_rate),
    )
    yield (
        "3x3 backward",
        lambda: kernels.convolve_backward(above, source2, bottleneck, norm2, weight2, between, grid, add=False),
        rows * (2 * width + 2 * growth_rate),
    )
    yield (
        "1x1 backward",
        lambda: kernels.pointwise_backward(between, source1, read, norm1, weight1, below, grid, add=True),
        rows * (2 * width + 3 * inputs),
    )


def median_ms(work: Callable[[], Any]) -> float:
    """The median time of one call, with an empty cache, by CUDA events."""
    from triton.testing import do_bench

    return float(do_bench(work, warmup=50, rep=200, return_mode="median"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="densenet169")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/kernels.py needs a CUDA device; this machine has none")
    architecture = find_architecture(arguments.model)
    if not isinstance(architecture, DenseNetArchitecture) or not architecture.bn_size:
        parser.error(f"{arguments.model} has no bottleneck layers")
    if arguments.batch % NUM_GROUPS:
        parser.error(f"--batch must be a multiple of {NUM_GROUPS}")
    from orchestrator.models.block.triton import TritonKernels

    torch.backends.cudnn.benchmark = True
    dtype = DTYPES[arguments.dtype]
    rows, ratios = [], {}
    side = 56
    for number, block in enumerate(architecture.blocks(), start=1):
        sizes = (arguments.batch // NUM_GROUPS,) * NUM_GROUPS
        values = tuple(size * side * side for size in sizes)
        grid = Grid(group_sizes=sizes, height=side, width=side, num_values=values)
        times: dict[str, dict[str, list[float]]] = {}
        for _ in range(ROUNDS):
            for by in ("triton", "cudnn"):
                for name, work, num_values in operations(
                    TritonKernels(convolutions=by), architecture, block, grid, dtype
                ):
                    times.setdefault(name, {}).setdefault(by, []).append(median_ms(work))
                    if len(times[name][by]) == ROUNDS:
                        ms = sorted(times[name][by])[ROUNDS // 2]
                        rate = num_values * dtype.itemsize / ms / 1e9
                        rows.append(
                            {
                                "block": number,
                                "operation": name,
                                "by": by,
                                "ms": round(ms, 4),
                                "tb_per_s": round(rate, 3),
                            }
                        )
        for name in ("3x3", "3x3 backward"):
            ratios[f"block{number}/{name}/cudnn"] = ratio_of_costs(times[name]["triton"], times[name]["cudnn"])
        side //= 2
    print_document(document(rows=rows, ratios=ratios), as_json=arguments.json)


if __name__ == "__main__":
    main()
