"""What is done to an image, with its numbers, and which part of each image of a batch that comes to.

Every transform is the same four steps with other numbers: cut a box out of the source, resize it, keep a window of
the result, mirror it. A `Geometry` holds those numbers for a batch; both loaders evaluate it and draw nothing.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from orchestrator.data.draws import CropVariant, crop_boxes, mirrors
from orchestrator.data.manifest import Manifest
from orchestrator.errors import UsageError

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Where the pixels of n output images come from."""

    boxes: npt.NDArray[np.int64]
    """int64[n, 4]: x, y, width, height of the box cut out of the source."""
    resized: npt.NDArray[np.int64]
    """int64[n, 2]: width and height that the box is resized to."""
    window_origins: npt.NDArray[np.int64]
    """int64[n, 2]: x and y of the window kept of the resized box."""
    mirrored: npt.NDArray[np.bool_]
    """bool[n]: whether the window is mirrored left to right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTransform:
    """Random sized crop, resized to a square, mirrored at random."""

    image_size: int
    """Side of the output in pixels."""
    crop: CropVariant
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation
    mirror: float = 0.5
    """Probability."""

    @property
    def output_size(self) -> int:
        """Side of the output in pixels."""
        return self.image_size

    def geometry(self, manifest: Manifest, indices: npt.NDArray[np.int64], *, seed: int, epoch: int) -> Geometry:
        """The crops and mirrors of samples in an epoch. indices: int64[n], rows of the manifest."""
        n = len(indices)
        return Geometry(
            boxes=crop_boxes(
                variant=self.crop,
                seed=seed,
                epoch=epoch,
                indices=indices,
                widths=manifest.widths[indices],
                heights=manifest.heights[indices],
                scale=self.scale,
                ratio=self.ratio,
            ),
            resized=np.full((n, 2), self.image_size, dtype=np.int64),
            window_origins=np.zeros((n, 2), dtype=np.int64),
            mirrored=mirrors(seed=seed, epoch=epoch, indices=indices, probability=self.mirror),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalTransform:
    """Short side resized, centre cut out, with torchvision's arithmetic of sizes."""

    resize: int
    """What the short side is resized to, in pixels."""
    crop: int
    """Side of the output in pixels; at most `resize`."""
    interpolation: Interpolation

    def __post_init__(self) -> None:
        if self.crop > self.resize:
            raise UsageError(
                f"Evaluation can't cut {self.crop} pixels out of an image whose short side is {self.resize}: "
                "make resize at least as large as crop."
            )

    @property
    def output_size(self) -> int:
        """Side of the output in pixels."""
        return self.crop

    def geometry(self, manifest: Manifest, indices: npt.NDArray[np.int64], *, seed: int, epoch: int) -> Geometry:
        """The centre crops of samples, the same for every seed and epoch. indices: int64[n], rows of the manifest."""
        del seed, epoch  # nothing here is random
        sizes = np.stack([manifest.widths[indices], manifest.heights[indices]], axis=1).astype(np.int64)
        short = sizes.min(axis=1, keepdims=True)
        resized = (self.resize * sizes / short).astype(np.int64)  # torchvision: int(resize * long / short)
        return Geometry(
            boxes=np.concatenate([np.zeros_like(sizes), sizes], axis=1),
            resized=resized,
            window_origins=np.rint((resized - self.crop) / 2).astype(np.int64),  # torchvision: int(round(… / 2.0))
            mirrored=np.zeros(len(indices), dtype=np.bool_),
        )


Transform = TrainTransform | EvalTransform
