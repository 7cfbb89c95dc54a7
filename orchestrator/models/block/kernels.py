"""What a machine must be able to do to run the fused block: eight operations over NHWC matrices.

A block's maps lie in one matrix [rows, channels], a row a pixel, image by image; each layer reads a prefix of its
columns and writes the next ones. A channel's batch statistics are taken once, when it is written, and serve every layer
that reads it. Backwards, the norms of all readers of a channel x add up to

    dx = sum(gamma / std * dy) - a - (x - mean) * b

with two numbers a and b for each group of images and channel: readers add to one gradient matrix, to a and to b
(`Gradient`), and the subtraction is done once, by `finish` or by who reads the gradient next.

`plain.py` is the specification: every other implementation computes the same up to rounding.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """How a matrix's rows are pixels of images, and images fall into groups.

    group_sizes: images of each group, which follow each other in the batch; 0 is allowed.
    num_values: what a channel's statistics of each group are taken over: its pixels, on all ranks that share it.
    """

    group_sizes: tuple[int, ...]
    height: int
    width: int
    num_values: tuple[int, ...]

    @property
    def num_groups(self) -> int:
        """Groups, empty ones among them."""
        return len(self.group_sizes)

    @property
    def num_images(self) -> int:
        """Images of all groups."""
        return sum(self.group_sizes)

    @property
    def num_rows(self) -> int:
        """Pixels of all images."""
        return self.num_images * self.height * self.width

    @property
    def row_bounds(self) -> tuple[int, ...]:
        """Group g has the rows from the g-th of these to the next: [groups + 1]."""
        pixels = self.height * self.width
        return tuple(accumulate((size * pixels for size in self.group_sizes), initial=0))

    def pooled(self) -> "Grid":
        """Of maps half as high and wide; a last odd row or column is left out, as torch's pooling does."""
        height, width = self.height // 2, self.width // 2
        return Grid(group_sizes=self.group_sizes, height=height, width=width, num_values=self.num_values)


class Moments(NamedTuple):
    """A channel's mean and biased variance in each group: two [groups, channels], rows may be pitched."""

    mean: Tensor
    var: Tensor

    @classmethod
    def zeros(cls, grid: Grid, channels: int, dtype: torch.dtype, device: torch.device) -> "Moments":
        """Moments to be written to."""
        return cls(*torch.zeros(2, grid.num_groups, channels, dtype=dtype, device=device).unbind())

    def columns(self, start: int, end: int) -> "Moments":
        """A view of those channels."""
        return Moments(self.mean[:, start:end], self.var[:, start:end])


class Norm(NamedTuple):
    """A batch norm of c channels: weight * (x - mean) / sqrt(var + eps) + bias."""

    moments: Moments
    """[groups, c], of the batch, or running ones repeated for each group; pitched rows are allowed."""
    weight: Tensor
    """[c]"""
    bias: Tensor
    """[c]"""
    eps: float
    of_batch: bool
    """Whether the moments are the batch's, so that a gradient flows through them."""


class Gradient(NamedTuple):
    """The gradient of some channels while their readers add to it: grad - a - (x - mean) * b."""

    grad: Tensor
    """[rows, c], rows may be pitched; in the maps' dtype."""
    a: Tensor
    """[groups, c], rows may be pitched; in the moments' dtype, as `b`."""
    b: Tensor

    def columns(self, start: int, end: int) -> "Gradient":
        """A view of those channels."""
        return Gradient(self.grad[:, start:end], self.a[:, start:end], self.b[:, start:end])


class Source(NamedTuple):
    """What `finish` needs besides a gradient: the channels that it is of, and their mean."""

    maps: Tensor
    """[rows, c], rows may be pitched."""
    mean: Tensor
    """[groups, c]"""


class ParameterGradients(NamedTuple):
    """Of a norm and the convolution behind it."""

    norm_weight: Tensor
    norm_bias: Tensor
    conv_weight: Tensor


class Kernels(Protocol):
    """Matrices are float64, float32, bfloat16 or float16, with columns side by side (stride 1) and any row pitch.

    Moments, a, b and the gradients of norms are float32, or float64 where the maps are. Convolution weights come in
    the maps' dtype and their gradients leave in that dtype or a wider one: pointwise [c_out, c_in], 3x3 [c_out, c_in,
    3, 3] in any memory format. Groups, and all rows together, may be empty. `moments` of None: not wanted. Where a
    `Moments` is given it is written to; an empty group's is left alone. Results are the same bits on every run.
    """

    name: str
    """What it is called in logs."""
    compile_s: float
    """What compiling took, 0 where nothing was compiled, or long ago."""

    def moments(self, maps: Tensor, moments: Moments, grid: Grid) -> None:
        """Take the moments of maps [rows, c]."""

    def pointwise(
        self, maps: Tensor, norm: Norm, weight: Tensor, out: Tensor, moments: Moments | None, grid: Grid
    ) -> None:
        """out[rows, c_out] = relu(norm(maps)) @ weight.T, and its moments."""

    def convolve(
        self, maps: Tensor, norm: Norm, weight: Tensor, out: Tensor, moments: Moments | None, grid: Grid
    ) -> None:
        """out[rows, c_out] = 3x3 convolution, padded by zeros, of relu(norm(maps)); and its moments."""

    def activate(self, maps: Tensor, norm: Norm, out: Tensor, grid: Grid, *, pool: bool) -> None:
        """out = relu(norm(maps)), or its 2x2 averages: [rows of grid.pooled(), c]."""

    def finish(self, gradient: Gradient, source: Source, grid: Grid) -> Tensor:
        """grad - a - (maps - mean) * b as a new matrix [rows, c]."""

    def pointwise_backward(
        self,
        gradient: Gradient,
        source: Source,
        maps: Tensor,
        norm: Norm,
        weight: Tensor,
        into: Gradient,
        grid: Grid,
        *,
        add: bool,
    ) -> ParameterGradients:
        """Backwards through `pointwise`, from the unfinished gradient of its result.

        source: of `gradient`: `pointwise`'s result and its mean. maps, norm, weight: as `pointwise` got them.
        into: of `maps`; what comes out is added to all of it, or, without `add`, written over it.
        """

    def convolve_backward(
        self,
        gradient: Gradient,
        source: Source,
        maps: Tensor,
        norm: Norm,
        weight: Tensor,
        into: Gradient,
        grid: Grid,
        *,
        add: bool,
    ) -> ParameterGradients:
        """Backwards through `convolve`; arguments as `pointwise_backward`'s."""

    def activate_backward(
        self, grad: Tensor, maps: Tensor, norm: Norm, into: Gradient, grid: Grid, *, pool: bool
    ) -> tuple[Tensor, Tensor]:
        """Backwards through `activate`: writes over `into`, returns the gradients of norm's weight and bias.

        grad: [rows, c], or [rows of grid.pooled(), c] with `pool`.
        """


def statistics_dtype(maps_dtype: torch.dtype) -> torch.dtype:
    """In what moments and sums of maps are kept."""
    return torch.promote_types(maps_dtype, torch.float32)
