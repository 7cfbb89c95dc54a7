"""What a DenseNet costs: parameters, multiply-adds and the maps that training keeps, stage by stage; free of torch.

Exact for one image: parameters as torch counts them; multiply-adds of convolutions and the fully connected layer, as
the paper counts FLOPs; activations that autograd keeps from the forward pass for the backward pass, without dropout's
masks. Not counted are what doesn't grow with the batch (weights, gradients, momentum) and what lives for a moment.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from orchestrator.errors import UsageError
from orchestrator.plan.architecture import BlockShape, DenseNetArchitecture

Precision = Literal["fp32", "bf16", "fp16"]

BYTES_PER_VALUE: Final[Mapping[Precision, int]] = {"fp32": 4, "bf16": 2, "fp16": 2}
_BYTES_PER_POOL_INDEX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FootprintRow:
    """One row of a table like the paper's Table 1, for one image.

    output: the shape of what comes out, such as "256x56x56" (channels, height, width).
    kept_values: values that autograd keeps for the backward pass, in the precision of activations.
    kept_values_memory_efficient: the same under recomputation.
    kept_indices: positions that max pooling keeps, 8 bytes each.
    """

    stage: str
    output: str
    layers: str
    num_parameters: int
    num_multiply_adds: int
    kept_values: int
    kept_values_memory_efficient: int
    kept_indices: int = 0

    def activation_bytes(self, precision: Precision, *, memory_efficient: bool) -> int:
        """Bytes of activations kept for the backward pass."""
        num_values = self.kept_values_memory_efficient if memory_efficient else self.kept_values
        return num_values * BYTES_PER_VALUE[precision] + self.kept_indices * _BYTES_PER_POOL_INDEX


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The rows of a network and their sums, for one image."""

    rows: tuple[FootprintRow, ...]

    @property
    def num_parameters(self) -> int:
        """Trained values; running statistics aren't among them."""
        return sum(row.num_parameters for row in self.rows)

    @property
    def num_multiply_adds(self) -> int:
        """Multiply-adds of one forward pass."""
        return sum(row.num_multiply_adds for row in self.rows)

    def activation_bytes_per_image(self, precision: Precision, *, memory_efficient: bool = False) -> int:
        """Bytes that training keeps for each image between its forward and its backward pass."""
        return sum(row.activation_bytes(precision, memory_efficient=memory_efficient) for row in self.rows)


def footprint(architecture: DenseNetArchitecture, *, num_classes: int, in_chans: int = 3, image_size: int) -> Footprint:
    """Count a network on square images of image_size pixels a side.

    Raises UsageError where the images are so small that nothing is left of them after the last pool.
    """
    rows = tuple(_rows(architecture, num_classes=num_classes, in_chans=in_chans, image_size=image_size))
    return Footprint(rows=rows)


def _rows(
    architecture: DenseNetArchitecture, *, num_classes: int, in_chans: int, image_size: int
) -> Iterator[FootprintRow]:
    if architecture.stem == "imagenet":
        yield from _imagenet_stem(in_chans, architecture.num_init_features, image_size)
        side = _halved_up(_halved_up(image_size))
    else:
        yield _cifar_stem(in_chans, architecture.num_init_features, image_size)
        side = image_size
    for number, block in enumerate(architecture.blocks(), start=1):
        if side < 1:
            raise UsageError(f"images of {image_size} px are too small: nothing is left of them at block {number}")
        yield _dense_block(architecture, block, number, side)
        if block.transition_channels is not None:
            yield _transition(block.out_channels, block.transition_channels, number, side)
            side //= 2
    yield _head(architecture.num_features, num_classes, side)


@dataclass(frozen=True, slots=True)
class _Convolution:
    """A convolution without bias; side is that of its output."""

    in_channels: int
    out_channels: int
    kernel: int
    side: int

    @property
    def num_parameters(self) -> int:
        return self.in_channels * self.out_channels * self.kernel**2

    @property
    def num_multiply_adds(self) -> int:
        return self.num_parameters * self.side**2

    @property
    def num_inputs(self) -> int:
        """Values of a map that it reads, where its stride is 1."""
        return self.in_channels * self.side**2

    @property
    def num_outputs(self) -> int:
        return self.out_channels * self.side**2

    @property
    def num_norm_parameters(self) -> int:
        """Weight and bias of the norm in front of it."""
        return 2 * self.in_channels


def _imagenet_stem(in_chans: int, out_channels: int, image_size: int) -> Iterator[FootprintRow]:
    """Keeps the image, the norm's input and the pool's input."""
    conv = _Convolution(in_chans, out_channels, 7, _halved_up(image_size))
    kept = in_chans * image_size**2 + 2 * conv.num_outputs
    pooled_side = _halved_up(conv.side)
    yield FootprintRow(
        stage="Convolution",
        output=_output(conv.side, out_channels),
        layers="7x7 conv, stride 2",
        num_parameters=conv.num_parameters + 2 * out_channels,
        num_multiply_adds=conv.num_multiply_adds,
        kept_values=kept,
        kept_values_memory_efficient=kept,
    )
    yield FootprintRow(
        stage="Pooling",
        output=_output(pooled_side, out_channels),
        layers="3x3 max pool, stride 2",
        num_parameters=0,
        num_multiply_adds=0,
        kept_values=0,
        kept_values_memory_efficient=0,
        kept_indices=out_channels * pooled_side**2,
    )


def _cifar_stem(in_chans: int, out_channels: int, image_size: int) -> FootprintRow:
    """Keeps the image."""
    conv = _Convolution(in_chans, out_channels, 3, image_size)
    return FootprintRow(
        stage="Convolution",
        output=_output(image_size, out_channels),
        layers="3x3 conv",
        num_parameters=conv.num_parameters,
        num_multiply_adds=conv.num_multiply_adds,
        kept_values=conv.num_inputs,
        kept_values_memory_efficient=conv.num_inputs,
    )


def _dense_block(architecture: DenseNetArchitecture, block: BlockShape, number: int, side: int) -> FootprintRow:
    """Keeps every norm's input and every convolution's; recomputing, each map that a norm will read, once."""
    convs = [conv for layer in range(block.num_layers) for conv in _layer(architecture, block, layer, side)]
    # The last layer's maps are read by the concatenation alone, which the transition (or the head) counts.
    read_within_block = (block.in_channels - architecture.growth_rate) * side**2
    kernels = ", ".join(f"{conv.kernel}x{conv.kernel} conv" for conv in _layer(architecture, block, 0, side))
    return FootprintRow(
        stage=f"Block {number}",
        output=_output(side, block.out_channels),
        layers=f"[{kernels}] x {block.num_layers}",
        num_parameters=sum(conv.num_norm_parameters + conv.num_parameters for conv in convs),
        num_multiply_adds=sum(conv.num_multiply_adds for conv in convs),
        kept_values=sum(2 * conv.num_inputs for conv in convs),
        kept_values_memory_efficient=read_within_block + sum(conv.num_outputs for conv in convs),
    )


def _layer(architecture: DenseNetArchitecture, block: BlockShape, layer: int, side: int) -> tuple[_Convolution, ...]:
    growth_rate = architecture.growth_rate
    in_channels = block.in_channels + layer * growth_rate
    width = architecture.bn_size * growth_rate
    if not width:
        return (_Convolution(in_channels, growth_rate, 3, side),)
    return _Convolution(in_channels, width, 1, side), _Convolution(width, growth_rate, 3, side)


def _transition(in_channels: int, out_channels: int, number: int, side: int) -> FootprintRow:
    """Keeps the norm's input, the convolution's (unless recomputed) and the pool's."""
    conv = _Convolution(in_channels, out_channels, 1, side)
    return FootprintRow(
        stage=f"Transition {number}",
        output=_output(side // 2, out_channels),
        layers="1x1 conv, 2x2 average pool",
        num_parameters=conv.num_norm_parameters + conv.num_parameters,
        num_multiply_adds=conv.num_multiply_adds,
        kept_values=2 * conv.num_inputs + conv.num_outputs,
        kept_values_memory_efficient=conv.num_inputs + conv.num_outputs,
    )


def _head(in_channels: int, num_classes: int, side: int) -> FootprintRow:
    """Keeps the norm's input, the ReLU's output and the classifier's input."""
    kept = 2 * in_channels * side**2 + in_channels
    return FootprintRow(
        stage="Classification",
        output=str(num_classes),
        layers=f"{side}x{side} average pool, fully connected",
        num_parameters=2 * in_channels + (in_channels + 1) * num_classes,
        num_multiply_adds=in_channels * num_classes,
        kept_values=kept,
        kept_values_memory_efficient=kept,
    )


def _halved_up(side: int) -> int:
    """The side behind a stride of 2 whose padding is half of its kernel."""
    return (side + 1) // 2


def _output(side: int, channels: int) -> str:
    return f"{channels}x{side}x{side}"
