"""The random part of where a sample's pixels come from: how it is cropped and whether it is mirrored.

A draw depends on (seed, epoch, sample) and the image's size alone, never on the batch, the rank or the loader. All
functions here are vectorised over samples; each try of each sample has uniform numbers of its own.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from orchestrator.philox import Stream, sample_uniforms

CropVariant = Literal["torch", "torchvision"]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_NUM_TRIES = 10  # both variants give up after ten
_UNIFORMS_PER_TRY = 5  # area, aspect, x, y, swap


def crop_boxes(
    *,
    variant: CropVariant,
    seed: int,
    epoch: int,
    indices: IntArray,
    widths: npt.NDArray[np.integer],
    heights: npt.NDArray[np.integer],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> IntArray:
    """The random sized crop of each sample: int64[n, 4], columns x, y, width, height in source pixels.

    variant: "torch" is the crop of the public Torch ResNet code, which the paper's authors build on: r uniform in
        `ratio`, width √area · r, height √area / r, exchanged with probability 1/2. "torchvision" is
        RandomResizedCrop: width over height log-uniform in `ratio`.
    indices, widths, heights: [n], the samples' numbers and the sizes of their images in pixels.
    scale: range of the crop's area as a share of the image's. ratio: see variant.

    A box is the first of ten tries that fits. If none does, "torch" takes the largest centred square (it scales the
    short side to the output's size and cuts the centre, which is that square) and "torchvision" the largest centred
    box whose aspect is in `ratio`.
    """
    u = sample_uniforms(
        seed=seed, stream=Stream.CROP, epoch=epoch, indices=indices, num_uniforms=_NUM_TRIES * _UNIFORMS_PER_TRY
    ).reshape(-1, _NUM_TRIES, _UNIFORMS_PER_TRY)
    image_w = np.asarray(widths, dtype=np.int64)
    image_h = np.asarray(heights, dtype=np.int64)
    areas = (image_w * image_h)[:, None] * _between(u[..., 0], scale)
    draw_sizes, fall_back = _VARIANTS[variant]
    try_w, try_h = draw_sizes(areas, u[..., 1], u[..., 4], ratio)

    fits = (try_w >= 1) & (try_h >= 1) & (try_w <= image_w[:, None]) & (try_h <= image_h[:, None])
    first = fits.argmax(axis=1)  # 0 where none fits
    rows = np.arange(len(image_w))
    any_fits = fits[rows, first]
    box_w, box_h = try_w[rows, first], try_h[rows, first]
    box_x = np.floor(u[rows, first, 2] * (image_w - box_w + 1)).astype(np.int64)
    box_y = np.floor(u[rows, first, 3] * (image_h - box_h + 1)).astype(np.int64)
    drawn = np.stack([box_x, box_y, box_w, box_h], axis=1)
    return np.where(any_fits[:, None], drawn, fall_back(image_w, image_h, ratio))


def padded_windows(
    *,
    seed: int,
    epoch: int,
    indices: IntArray,
    widths: npt.NDArray[np.integer],
    heights: npt.NDArray[np.integer],
    padding: int,
    side: int,
) -> IntArray:
    """Where a square is cut out of each image after padding: int64[n, 2], x and y in pixels of the image itself.

    padding: pixels added on every side, which are the ones at negative positions and beyond the image's size.
    side: of the square; the padded image must be at least as large. Every position in it is as likely as another.
    """
    u = sample_uniforms(seed=seed, stream=Stream.CROP, epoch=epoch, indices=indices, num_uniforms=2)
    sizes = np.stack([widths, heights], axis=1).astype(np.int64)
    num_positions = sizes + 2 * padding - side + 1
    return np.floor(u * num_positions).astype(np.int64) - padding


def mirrors(*, seed: int, epoch: int, indices: IntArray, probability: float) -> npt.NDArray[np.bool_]:
    """Whether each sample is mirrored left to right: bool[n]."""
    uniforms = sample_uniforms(seed=seed, stream=Stream.MIRROR, epoch=epoch, indices=indices, num_uniforms=1)
    return uniforms[:, 0] < probability


def _between(uniforms: FloatArray, bounds: tuple[float, float]) -> FloatArray:
    low, high = bounds
    return low + uniforms * (high - low)


def _torch_sizes(
    areas: FloatArray, u_aspect: FloatArray, u_swap: FloatArray, ratio: tuple[float, float]
) -> tuple[IntArray, IntArray]:
    r = _between(u_aspect, ratio)
    side = np.sqrt(areas)
    w = np.floor(side * r + 0.5).astype(np.int64)  # Lua's rounding: halves up
    h = np.floor(side / r + 0.5).astype(np.int64)
    swapped = u_swap < 0.5
    return np.where(swapped, h, w), np.where(swapped, w, h)


def _torchvision_sizes(
    areas: FloatArray, u_aspect: FloatArray, _: FloatArray, ratio: tuple[float, float]
) -> tuple[IntArray, IntArray]:
    aspects = np.exp(_between(u_aspect, (np.log(ratio[0]), np.log(ratio[1]))))
    w = np.rint(np.sqrt(areas * aspects)).astype(np.int64)  # Python's rounding: halves to even
    h = np.rint(np.sqrt(areas / aspects)).astype(np.int64)
    return w, h


def _largest_square(image_w: IntArray, image_h: IntArray, _: tuple[float, float]) -> IntArray:
    side = np.minimum(image_w, image_h)
    return _centred(image_w, image_h, side, side)


def _largest_within_ratio(image_w: IntArray, image_h: IntArray, ratio: tuple[float, float]) -> IntArray:
    w = np.minimum(image_w, np.rint(image_h * ratio[1]).astype(np.int64))
    h = np.minimum(image_h, np.rint(image_w / ratio[0]).astype(np.int64))
    return _centred(image_w, image_h, w, h)


def _centred(image_w: IntArray, image_h: IntArray, w: IntArray, h: IntArray) -> IntArray:
    return np.stack([(image_w - w) // 2, (image_h - h) // 2, w, h], axis=1)


_VARIANTS = {
    "torch": (_torch_sizes, _largest_square),
    "torchvision": (_torchvision_sizes, _largest_within_ratio),
}
