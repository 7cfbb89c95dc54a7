"""Data sets that come as arrays of pixels, and the files that they become."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.data.prepare.parts import Images, Part
from orchestrator.data.prepare.png import stored_png, stored_png_bytes
from orchestrator.errors import DataError

_MAX_FILE_BYTES = 4096  # of a 32x32 image: 3172, and filesystems give whole blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Images that lie together in an archive."""

    pixels: npt.NDArray[np.uint8]
    """uint8[n, height, width, 3], in any order of memory."""
    labels: npt.NDArray[np.int64]
    """int64[n]."""
    prefix: str = ""
    """Of the files' names, which are numbers otherwise."""


def parts_of_pixels(train: Sequence[Block], test: Block, *, class_names: Sequence[str]) -> tuple[Part, ...]:
    """The parts of a data set: train/ has all training images, val/ the test set.

    train: in the order of their prefixes. class_names: by label, and in the order of the names, so that labels stay
    what they are. Raises DataError if a split has no image of a class, or a label no class.
    """
    _check(class_names, [*train, test])
    return tuple(
        _part(split, name, [(block, np.flatnonzero(block.labels == label)) for block in blocks])
        for split, blocks in (("train", train), ("val", [test]))
        for label, name in enumerate(class_names)
    )


def _check(class_names: Sequence[str], blocks: Sequence[Block]) -> None:
    if list(class_names) != sorted(set(class_names)) or not all(
        name.replace("_", "").isalnum() for name in class_names
    ):
        raise DataError(f"The names of the classes aren't plain words in order: {', '.join(class_names)}.")
    for block in blocks:
        outside = block.labels[(block.labels < 0) | (block.labels >= len(class_names))]
        if len(outside):
            raise DataError(f"There are {len(class_names)} classes, and an image with the label {outside[0]}.")


def _part(split: str, class_name: str, chosen: Sequence[tuple[Block, npt.NDArray[np.int64]]]) -> Part:
    num_images = sum(len(positions) for _, positions in chosen)
    if num_images == 0:
        raise DataError(f"There is no image of {class_name} for {split}.")
    return Part(
        split=split,
        class_name=class_name,
        num_images=num_images,
        num_bytes=num_images * _MAX_FILE_BYTES,
        open=lambda: _images(chosen),
    )


def _images(chosen: Sequence[tuple[Block, npt.NDArray[np.int64]]]) -> Images:
    places = [(block, position) for block, positions in chosen for position in positions.tolist()]

    def read(number: int) -> bytes:
        block, position = places[number]
        return stored_png(block.pixels[position])

    return Images(
        names=[f"{block.prefix}{position:06d}.png" for block, position in places],
        num_bytes=[stored_png_bytes(*block.pixels.shape[1:3]) for block, _ in places],
        read=read,
    )
