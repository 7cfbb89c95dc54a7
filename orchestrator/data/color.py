"""The random part of a sample's colours: brightness, contrast, saturation and lighting, as the authors' Torch code.

Each of them is linear in a pixel and in the mean of the image's pixels, and nothing is clamped in between. So all of
them together, in any order, are one affine map of (pixel, mean) a sample; it is drawn here and applied where images are
normalised, in floating point, on the device. Mirroring commutes with it, since the mean doesn't change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import torch

from orchestrator.philox import Stream, sample_uniforms

GREY: Final = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the grey image (ITU-R BT.601), as the authors' code has them."""
EIGENVALUES: Final = np.array([0.2175, 0.0188, 0.0045])
"""Of the covariance of ImageNet's pixels, on values in [0, 1]; Krizhevsky et al. 2012, from the authors' code."""
EIGENVECTORS: Final = np.array(
    [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ]
)
"""In columns; rows are red, green and blue."""

_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)
_ORDERS = np.array(list(permutations((_BRIGHTNESS, _CONTRAST, _SATURATION))))
_NUM_UNIFORMS = 3 + 1 + 6  # the strength of each blend, their order, and two for each normal number of the lighting
_GREY_OF_ALL = np.tile(GREY, (3, 1))  # makes every channel grey


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorTransform:
    """How far colours are changed at random; see `draw_color_maps`."""

    jitter: float
    """Brightness, contrast and saturation are each blended with a weight in [1 - jitter, 1 + jitter]."""
    lighting: float
    """Standard deviation of the weight of each principal component of ImageNet's colours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorMaps:
    """For each of n samples: value = pixel @ x + mean @ (mean of x over the image) + shift, for x in [0, 1]."""

    pixel: torch.Tensor
    """float32[n, 3, 3]."""
    mean: torch.Tensor
    """float32[n, 3, 3]."""
    shift: torch.Tensor
    """float32[n, 3]."""

    @classmethod
    def joined(cls, maps: Sequence[Self]) -> Self:
        """Those of several batches, one after another."""
        parts = zip(*((each.pixel, each.mean, each.shift) for each in maps), strict=True)
        pixel, mean, shift = (torch.cat(part) for part in parts)
        return cls(pixel=pixel, mean=mean, shift=shift)

    def to(self, device: torch.device) -> Self:
        """The same maps on a device."""
        return type(self)(pixel=self.pixel.to(device), mean=self.mean.to(device), shift=self.shift.to(device))


def draw_color_maps(transform: ColorTransform, *, seed: int, epoch: int, indices: npt.NDArray[np.int64]) -> ColorMaps:
    """The colour change of each sample, drawn from (seed, epoch, sample). indices: int64[n], the samples' numbers.

    In random order, brightness, contrast and saturation each blend the image with a target: black, the mean of the grey
    image, the grey image. The image weighs w, uniform in [1 - jitter, 1 + jitter], the target 1 - w. Then lighting adds
    the three eigenvectors, each times its eigenvalue and a normal number with standard deviation `lighting`.
    """
    u = sample_uniforms(seed=seed, stream=Stream.COLOR, epoch=epoch, indices=indices, num_uniforms=_NUM_UNIFORMS)
    weights = 1 - transform.jitter + 2 * transform.jitter * u[:, :3]
    order = _ORDERS[np.floor(u[:, 3] * len(_ORDERS)).astype(np.int64)]
    pixel = np.tile(np.eye(3), (len(u), 1, 1))
    mean = np.zeros_like(pixel)
    for blend in order.T:
        weight = np.take_along_axis(weights, blend[:, None], axis=1)[:, :, None]
        to_grey = (blend == _SATURATION)[:, None, None] * _GREY_OF_ALL
        to_mean_grey = (blend == _CONTRAST)[:, None, None] * _GREY_OF_ALL
        target_pixel, target_mean = to_grey @ pixel, to_grey @ mean + to_mean_grey @ (pixel + mean)
        pixel = weight * pixel + (1 - weight) * target_pixel
        mean = weight * mean + (1 - weight) * target_mean
    shift = transform.lighting * _normals(u[:, 4:7], u[:, 7:]) * EIGENVALUES @ EIGENVECTORS.T
    return ColorMaps(pixel=_float32(pixel), mean=_float32(mean), shift=_float32(shift))


def _normals(u1: npt.NDArray[np.float64], u2: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Standard normal numbers from pairs of uniform ones in [0, 1), by Box and Muller."""
    normals: npt.NDArray[np.float64] = np.sqrt(-2 * np.log1p(-u1)) * np.cos(2 * np.pi * u2)
    return normals


def _float32(values: npt.NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
