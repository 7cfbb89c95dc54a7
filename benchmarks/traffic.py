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


def stages(
    architecture: DenseNetArchitecture, *, batch: int, image_size: int, by_library: bool, classes: int
) -> Iterator[Stage]:
    """All stages. by_library: 3x3 convolutions get activated maps from memory (cuDNN), not while they read (Triton)."""
    yield _stem(architecture.num_init_features, batch, image_size)
    side = (image_size + 3) // 4
    for number, block in enumerate(architecture.blocks(), start=1):
        rows = batch * side**2
        yield _block(architecture, block, rows, number, by_library=by_library)
        if block.transition_channels is not None:
            yield _transition(block.out_channels, block.transition_channels, rows, number)
            side //= 2
        else:
            yield _head(block.out_channels, rows, classes, batch)


def _stem(channels: int, batch: int, image_size: int) -> Stage:
    """7x7 convolution, norm and ReLU, 3x3 pool; no kernel of ours but norm's."""
    images, maps = batch * image_size**2 * 3, batch * (image_size // 2) ** 2 * channels
    pooled = maps // 4
    forward = images + maps + maps + 2 * maps + maps + pooled  # conv, moments, activate, pool
    # pool, activate_backward (gradient, maps, result), finish (gradient, maps, result), weight gradient
    backward = pooled + maps + 3 * maps + 3 * maps + maps + images
    return Stage("stem", forward, backward, 49 * 3 * maps)


def _block(architecture: DenseNetArchitecture, block: BlockShape, rows: int, number: int, *, by_library: bool) -> Stage:
    growth_rate, width = architecture.growth_rate, architecture.bn_size * architecture.growth_rate
    # The input is copied into the block's matrix, its moments are taken; backwards the gradient is copied and finished.
    forward = 3 * rows * block.in_channels
    backward = 2 * rows * block.out_channels + 3 * rows * block.in_channels
    multiply_adds = 0
    for layer in range(block.num_layers):
        inputs = block.in_channels + layer * growth_rate
        forward += rows * (inputs + width)  # pointwise
        forward += rows * (width + growth_rate)  # 3x3
        backward += rows * 3 * growth_rate  # finish
        if by_library:
            forward += rows * (2 * width + 2 * growth_rate)  # activated maps; results into their place
            backward += rows * 2 * width  # activated maps
            backward += rows * (growth_rate + width)  # gradient of inputs
            backward += rows * (growth_rate + width)  # gradient of weights
            backward += rows * 3 * width  # through the norm
        else:
            backward += rows * (growth_rate + width)  # gradient of weights
            backward += rows * (growth_rate + 2 * width)  # gradient of inputs, through the norm
        # pointwise: gradient and result of the bottleneck; maps and their gradient, which is added to
        backward += rows * (2 * width + 3 * inputs)
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
    counted = {
        name: list(
            stages(
                architecture,
                batch=arguments.batch,
                image_size=arguments.image_size,
                by_library=by_library,
                classes=1000,
            )
        )
        for name, by_library in (("triton", False), ("cudnn", True))
    }
    size = arguments.bytes_per_value
    totals = {name: sum(stage.forward + stage.backward for stage in found) * size for name, found in counted.items()}
    tflop = 2 * 3 * sum(stage.multiply_adds for stage in counted["triton"]) / 1e12
    if arguments.json:
        print(json.dumps({"bytes": totals, "tflop": tflop}))
        return
    print(f"{arguments.model}, {arguments.batch} images of {arguments.image_size} px, {size} bytes a value: GB")
    print(f"{'':14}{'forward':>9}{'backward':>9}   with 3x3 by triton; and by cudnn")
    for ours, theirs in zip(counted["triton"], counted["cudnn"], strict=True):
        values = [value * size / GB for value in (ours.forward, ours.backward, theirs.forward, theirs.backward)]
        print(f"{ours.name:14}{values[0]:9.2f}{values[1]:9.2f}{values[2]:9.2f}{values[3]:9.2f}")
    for name, total in totals.items():
        ms = total / arguments.bandwidth / 1e9
        print(f"all, {name:9}{total / GB:9.1f} GB, {ms:.1f} ms at {arguments.bandwidth} TB/s")
    print(f"arithmetic    {tflop:9.2f} TFLOP")


if __name__ == "__main__":
    main()
