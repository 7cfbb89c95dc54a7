"""What is done to an image, with its numbers, and which part of each image of a batch that comes to.

Every transform is the same four steps with other numbers: cut a box out of the source, resize it, keep a window of
the result, mirror it. A `Geometry` holds those numbers for a batch; both loaders evaluate it and draw nothing.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from orchestrator.data.color import ColorMaps, ColorTransform, draw_color_maps
from orchestrator.data.draws import crop_boxes, mirrors, padded_windows
from orchestrator.data.manifest import Manifest
from orchestrator.errors import DataError

Interpolation = Literal["bilinear", "bicubic"]
Fill = tuple[int, int, int]

BLACK: Fill = (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Where the pixels of the views of n images come from; views of an image follow one another."""

    boxes: npt.NDArray[np.int64]
    """int64[n, 4]: x, y, width, height of the box cut out of the source."""
    resized: npt.NDArray[np.int64]
    """int64[n, 2]: width and height that the box is resized to."""
    window_origins: npt.NDArray[np.int64]
    """int64[n * views, 2]: x and y of the window kept of the resized box; it may reach beyond that."""
    mirrored: npt.NDArray[np.bool_]
    """bool[n * views]: whether the window is mirrored left to right."""
    fill: Fill = BLACK
    """Red, green and blue of the window where it lies beyond the resized box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTransform:
    """A random crop, mirrored at random, its colours changed at random."""

    image_size: int
    """Side of the output in pixels."""
    crop: Literal["torch", "torchvision", "pad"]
    """Random sized crops, resized, for the first two (see draws.crop_boxes); "pad" cuts the square, as it is, out of
    the image with `padding` pixels of `fill` on every side."""
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation
    padding: int = 4
    fill: Fill = BLACK
    """Of the padding, before anything is done to colours."""
    mirror: float = 0.5
    """Probability."""
    color: ColorTransform | None = None

    @property
    def output_size(self) -> int:
        """Side of the output in pixels."""
        return self.image_size

    @property
    def num_views(self) -> int:
        """Outputs of each image."""
        return 1

    def geometry(self, manifest: Manifest, indices: npt.NDArray[np.int64], *, seed: int, epoch: int) -> Geometry:
        """The crops and mirrors of samples in an epoch. indices: int64[n], rows of the manifest."""
        mirrored = mirrors(seed=seed, epoch=epoch, indices=indices, probability=self.mirror)
        widths, heights = manifest.widths[indices], manifest.heights[indices]
        if self.crop == "pad":
            sizes = _sizes(manifest, indices)
            return Geometry(
                boxes=_whole_images(sizes),
                resized=sizes,
                window_origins=padded_windows(
                    seed=seed,
                    epoch=epoch,
                    indices=indices,
                    widths=widths,
                    heights=heights,
                    padding=self.padding,
                    side=self.image_size,
                ),
                mirrored=mirrored,
                fill=self.fill,
            )
        n = len(indices)
        return Geometry(
            boxes=crop_boxes(
                variant=self.crop,
                seed=seed,
                epoch=epoch,
                indices=indices,
                widths=widths,
                heights=heights,
                scale=self.scale,
                ratio=self.ratio,
            ),
            resized=np.full((n, 2), self.image_size, dtype=np.int64),
            window_origins=np.zeros((n, 2), dtype=np.int64),
            mirrored=mirrored,
        )

    def color_maps(self, indices: npt.NDArray[np.int64], *, seed: int, epoch: int) -> ColorMaps | None:
        """How the colours of samples change in an epoch; None where they don't."""
        if self.color is None:
            return None
        return draw_color_maps(self.color, seed=seed, epoch=epoch, indices=indices)

    def check(self, manifest: Manifest) -> None:
        """Raise DataError if an image is too small for the crop."""
        if self.crop != "pad" or manifest.num_samples == 0:
            return
        sides = np.minimum(manifest.widths, manifest.heights)
        smallest = int(sides.argmin())
        if sides[smallest] + 2 * self.padding < self.image_size:
            raise DataError(
                f"{manifest.path(smallest)} is {manifest.widths[smallest]}x{manifest.heights[smallest]} pixels, too "
                f"small to cut {self.image_size}x{self.image_size} out of it with a padding of {self.padding}: "
                "use data.train.crop=torch, which resizes, or a smaller data.train.image_size."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalTransform:
    """Short side resized; centre cut out, or all that TenCrop cuts. torchvision's arithmetic of sizes and padding."""

    resize: int | None
    """What the short side is resized to, in pixels; None to leave images as large as they are."""
    crop: int
    """Side of the output in pixels; what it exceeds the image by is filled."""
    interpolation: Interpolation
    crops: Literal[1, 10] = 1
    """1: the centre; 10: corners, left to right and top to bottom, and centre; then those of the mirror image."""
    fill: Fill = BLACK

    @property
    def output_size(self) -> int:
        """Side of the output in pixels."""
        return self.crop

    @property
    def num_views(self) -> int:
        """Outputs of each image."""
        return self.crops

    def geometry(self, manifest: Manifest, indices: npt.NDArray[np.int64], *, seed: int, epoch: int) -> Geometry:
        """The crops of samples, the same for every seed and epoch. indices: int64[n], rows of the manifest."""
        del seed, epoch  # nothing here is random
        sizes = _sizes(manifest, indices)
        resized = sizes
        if self.resize is not None:  # torchvision: int(resize * long / short)
            resized = (self.resize * sizes / sizes.min(axis=1, keepdims=True)).astype(np.int64)
        margins = resized - self.crop
        # torchvision: int(round(margin / 2.0)), halves to even; what is missing is padded, less before than after
        centres = np.where(margins < 0, -(-margins // 2), np.rint(margins / 2).astype(np.int64))
        origins = centres if self.crops == 1 else _ten_crops(margins, centres)
        return Geometry(
            boxes=_whole_images(sizes),
            resized=resized,
            window_origins=origins,
            mirrored=np.tile(np.arange(self.crops) >= 5, len(indices)),
            fill=self.fill,
        )

    def color_maps(self, indices: npt.NDArray[np.int64], *, seed: int, epoch: int) -> None:
        """Colours stay as they are."""

    def check(self, manifest: Manifest) -> None:
        """Raise DataError if an image is too small for ten crops; a single one is padded."""
        if self.crops == 1 or manifest.num_samples == 0:
            return
        sides = np.minimum(manifest.widths, manifest.heights)
        smallest = int(sides.argmin())
        if (self.resize or sides[smallest]) < self.crop:
            size = f"{manifest.widths[smallest]}x{manifest.heights[smallest]} pixels"
            resized = "" if self.resize is None else f", its short side resized to {self.resize}"
            raise DataError(
                f"{manifest.path(smallest)} is {size}{resized}, too small for ten crops of "
                f"{self.crop}: use a single crop, or a larger data.eval.resize."
            )


Transform = TrainTransform | EvalTransform


def _ten_crops(margins: npt.NDArray[np.int64], centres: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where ten crops begin, as seen before mirroring: int64[n * 10, 2].

    margins: int64[n, 2], how much wider and higher the image is than a crop. centres: int64[n, 2].
    """
    corners = [margins * np.array(corner) for corner in ((0, 0), (1, 0), (0, 1), (1, 1))]
    crops = np.stack([*corners, centres], axis=1)
    mirrored = crops.copy()
    mirrored[:, :, 0] = margins[:, None, 0] - crops[:, :, 0]  # what lies left in the mirror image lies right here
    return np.concatenate([crops, mirrored], axis=1).reshape(-1, 2)


def _sizes(manifest: Manifest, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Widths and heights: int64[n, 2]."""
    return np.stack([manifest.widths[indices], manifest.heights[indices]], axis=1).astype(np.int64)


def _whole_images(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Boxes of images in full: int64[n, 4]."""
    return np.concatenate([np.zeros_like(sizes), sizes], axis=1)
