"""What each operation of the fused block takes on this GPU, and how other tiles would do.

    python benchmarks/kernels.py [--json] [--model densenet169] [--batch 256] [--dtype bf16] [--sweep]

The operations of each block's middle layer, forwards and backwards, with 4 batch-norm groups: median times by CUDA
events, and the values that each must read and write (those of its inputs and results, once) over the time. --sweep:
those that multiply with other tiles, too, the fastest first.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import product
from typing import Any

import torch
from common import document, print_document
from triton.runtime.errors import OutOfResources

from orchestrator.models.block.kernels import Gradient, Grid, Moments, Norm, Source
from orchestrator.models.block.triton import Tile, Tiles, TritonKernels
from orchestrator.models.block.triton.tiles import NARROW, WIDE
from orchestrator.plan.architecture import BlockShape, DenseNetArchitecture
from orchestrator.plan.networks import find_architecture

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NUM_GROUPS = 4


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


def sweeps(tiles: Tiles) -> Iterator[tuple[str, Tile, Tiles]]:
    """(operation, its tile, all tiles) of what else might be fast."""
    for rows, channels, num_warps, num_stages, programs in product((32, 64, 128), (32, 64), (4, 8), (3, 4), (1, 2, 4)):
        tile = Tile(
            rows=rows,
            channels=channels,
            num_warps=num_warps,
            num_stages=num_stages,
            programs_per_processor=programs,
        )
        yield "1x1", tile, replace(tiles, forward=tile)
        yield "1x1 backward", tile, replace(tiles, backward=tile)


def timed(
    tiles: Tiles | None, only: str | None, architecture: DenseNetArchitecture, batch: int, dtype: torch.dtype
) -> Iterator[dict[str, Any]]:
    """Rows of each block's operations."""
    kernels, side = TritonKernels(tiles=tiles), 56
    for number, block in enumerate(architecture.blocks(), start=1):
        sizes = (batch // NUM_GROUPS,) * NUM_GROUPS
        values = tuple(size * side * side for size in sizes)
        grid = Grid(group_sizes=sizes, height=side, width=side, num_values=values)
        for name, work, num_values in operations(kernels, architecture, block, grid, dtype):
            if only in (None, name):
                ms = median_ms(work)
                rate = num_values * dtype.itemsize / ms / 1e9
                yield {"block": number, "operation": name, "ms": round(ms, 4), "tb_per_s": round(rate, 3)}
        side //= 2


def swept(architecture: DenseNetArchitecture, batch: int, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """Rows of other tiles: an operation's time in a step, over all of a network's layers."""
    found = []
    layers = [block.num_layers for block in architecture.blocks()]
    for operation, tile, tiles in sweeps(NARROW if dtype.itemsize == 2 else WIDE):
        try:
            rows = list(timed(tiles, operation, architecture, batch, dtype))
        except OutOfResources:  # of shared memory
            continue
        total = sum(row["ms"] * number for row, number in zip(rows, layers, strict=True))
        found.append({"operation": operation, **asdict(tile), "ms_a_step": round(total, 3)})
    yield from sorted(found, key=lambda row: (row["operation"], row["ms_a_step"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="densenet169")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--sweep", action="store_true", help="try other tiles, too")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/kernels.py needs a CUDA device; this machine has none")
    architecture = find_architecture(arguments.model)
    if not isinstance(architecture, DenseNetArchitecture) or not architecture.bn_size:
        parser.error(f"{arguments.model} has no bottleneck layers")
    if arguments.batch % NUM_GROUPS:
        parser.error(f"--batch must be a multiple of {NUM_GROUPS}")
    torch.backends.cudnn.benchmark = True
    what = architecture, arguments.batch, DTYPES[arguments.dtype]
    rows = list(timed(None, None, *what))
    if arguments.sweep:
        rows += swept(*what)
    print_document(document(rows=rows, ratios={}), as_json=arguments.json)


if __name__ == "__main__":
    main()
