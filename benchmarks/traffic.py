"""Counts the bytes that a training step moves through a GPU's memory with the fused block's kernels.

    python benchmarks/traffic.py --model densenet169 --batch 256

Counted, not measured: each operation's inputs are read once and its results written once. What a kernel reads again,
for another tap or block of channels, is taken to come from the cache. Weights, moments and partial sums are left out.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.plan.architecture import BlockShape, DenseNetArchitecture
from orchestrator.plan.networks import find_architecture

GB = 1e9


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the network: values moved forwards and backwards, and multiply-adds forwards."""

    name: str
    forward: int
    backward: int
    multiply_adds: int


def stages(architecture: DenseNetArchitecture, *, batch: int, image_size: int, classes: int) -> Iterator[Stage]:
    """All stages."""
    yield _stem(architecture.num_init_features, batch, image_size)
    side = (image_size + 3) // 4
    for number, block in enumerate(architecture.blocks(), start=1):
        rows = batch * side**2
        yield _block(architecture, block, rows, number)
        if block.transition_channels is not None:
            yield _transition(block.out_channels, block.transition_channels, rows, number)
            side //= 2
        else:
            yield _head(block.out_channels, rows, classes, batch)


def _stem(channels: int, batch: int, image_size: int) -> Stage:
    """7x7 convolution, norm and ReLU, 3x3 pool, whose taps count as a value each though they are bytes."""
    images, maps = batch * image_size**2 * 3, batch * (image_size // 2) ** 2 * channels
    pooled = maps // 4
    forward = images + maps + maps + 2 * maps + maps + 2 * pooled  # conv, moments, activate, pool
    # pool, activate_backward (gradient, maps, result), finish (gradient, maps, result), weight gradient
    backward = 2 * pooled + maps + 3 * maps + 3 * maps + maps + images
    return Stage("stem", forward, backward, 49 * 3 * maps)


def _block(architecture: DenseNetArchitecture, block: BlockShape, rows: int, number: int) -> Stage:
    growth_rate, width = architecture.growth_rate, architecture.bn_size * architecture.growth_rate
    # The input is copied into the block's matrix, its moments are taken; backwards the gradient is copied and finished.
    forward = 3 * rows * block.in_channels
    backward = 2 * rows * block.out_channels + 3 * rows * block.in_channels
    multiply_adds = 0
    for layer in range(block.num_layers):
        inputs = block.in_channels + layer * growth_rate
        forward += rows * (inputs + width)  # pointwise
        forward += rows * (3 * width + 3 * growth_rate)  # activated maps, 3x3, results into their place
        backward += rows * 3 * growth_rate  # finish
        backward += rows * 2 * width  # activated maps
        backward += rows * 2 * (growth_rate + width)  # gradients of inputs and of weights
        backward += rows * 3 * width  # through the norm
        backward += rows * 3 * width  # finish
        backward += rows * (width + 3 * inputs)  # pointwise: maps, and their gradient, which is added to
        multiply_adds += rows * (inputs * width + 9 * width * growth_rate)
    return Stage(f"block {number}", forward, backward, multiply_adds)


def _transition(inputs: int, outputs: int, rows: int, number: int) -> Stage:
    pooled = rows // 4
    forward = rows * inputs + pooled * inputs + pooled * (inputs + outputs)
    backward = pooled * (2 * outputs + 2 * inputs)  # both products
    backward += pooled * inputs + 2 * rows * inputs + 3 * rows * inputs  # activate_backward, finish
    return Stage(f"transition {number}", forward, backward, pooled * inputs * outputs)


def _head(channels: int, rows: int, classes: int, batch: int) -> Stage:
    forward = 2 * rows * channels + rows * channels
    backward = rows * channels + 3 * rows * channels + 3 * rows * channels
    return Stage("head", forward, backward, batch * channels * classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="densenet169")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--bytes-per-value", type=int, default=2, help="2 for bf16 and fp16, 4 for fp32")
    parser.add_argument("--bandwidth", type=float, default=4.3, help="TB/s, to turn bytes into a time")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    architecture = find_architecture(arguments.model)
    if not isinstance(architecture, DenseNetArchitecture) or architecture.stem != "imagenet":
        parser.error(f"{arguments.model} is no DenseNet for ImageNet")
    counted = list(stages(architecture, batch=arguments.batch, image_size=arguments.image_size, classes=1000))
    size = arguments.bytes_per_value
    total = sum(stage.forward + stage.backward for stage in counted) * size
    tflop = 2 * 3 * sum(stage.multiply_adds for stage in counted) / 1e12
    if arguments.json:
        print(json.dumps({"bytes": total, "tflop": tflop}))
        return
    print(f"{arguments.model}, {arguments.batch} images of {arguments.image_size} px, {size} bytes a value: GB")
    print(f"{'':14}{'forward':>9}{'backward':>9}")
    for stage in counted:
        print(f"{stage.name:14}{stage.forward * size / GB:9.2f}{stage.backward * size / GB:9.2f}")
    ms = total / arguments.bandwidth / 1e9
    print(f"{'all':14}{total / GB:9.1f} GB, {ms:.1f} ms at {arguments.bandwidth} TB/s")
    print(f"arithmetic    {tflop:9.2f} TFLOP")


if __name__ == "__main__":
    main()
