"""What a network's stages cost, and the arithmetic of the convolutions in them; free of torch.

Exact for one image: parameters as torch counts them; multiply-adds of convolutions and the fully connected layer, as
the paper counts FLOPs; activations that autograd keeps from the forward pass for the backward pass, without the masks
of dropout and stochastic depth. Not counted are what doesn't grow with the batch (weights, gradients, momentum) and
what lives for a moment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

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


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution without bias; side is that of its output."""

    in_channels: int
    out_channels: int
    kernel: int
    side: int

    @property
    def num_parameters(self) -> int:
        """Its weights."""
        return self.in_channels * self.out_channels * self.kernel**2

    @property
    def num_multiply_adds(self) -> int:
        """Of one image."""
        return self.num_parameters * self.side**2

    @property
    def num_inputs(self) -> int:
        """Values of a map that it reads, where its stride is 1."""
        return self.in_channels * self.side**2

    @property
    def num_outputs(self) -> int:
        """Values of the maps that it leaves."""
        return self.out_channels * self.side**2

    @property
    def num_norm_parameters(self) -> int:
        """Weight and bias of the norm in front of it."""
        return 2 * self.in_channels


def cifar_stem(in_chans: int, out_channels: int, image_size: int) -> FootprintRow:
    """A 3x3 convolution of stride 1. Keeps the image."""
    conv = Convolution(in_chans, out_channels, 3, image_size)
    return FootprintRow(
        stage="Convolution",
        output=shape_text(image_size, out_channels),
        layers="3x3 conv",
        num_parameters=conv.num_parameters,
        num_multiply_adds=conv.num_multiply_adds,
        kept_values=conv.num_inputs,
        kept_values_memory_efficient=conv.num_inputs,
    )


def head_of_norm(in_channels: int, num_classes: int, side: int) -> FootprintRow:
    """Norm, ReLU, average pool, classifier. Keeps the norm's input, the ReLU's output and the classifier's input."""
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


def shape_text(side: int, channels: int) -> str:
    """The shape of square maps, such as "256x56x56"."""
    return f"{channels}x{side}x{side}"
