"""Writes the demo data set: the handwritten digits that come with scikit-learn, as JPEG files in ImageNet layout.

1797 pictures of ten classes, 32x32 RGB, 1500 to train on and 297 to validate on. The split is fixed and takes the same
share of every class. The folder appears whole or not at all; where it is already, nothing is written.
"""

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from orchestrator.errors import DataError, UsageError

IMAGE_SIZE = 32
NUM_VAL_IMAGES = 297

_JPEG_QUALITY = 90
_MAX_DIGIT_VALUE = 16  # scikit-learn's digits are 8x8 pixels with values 0 to 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoData:
    """What write_demo left on disk."""

    root: Path
    num_train_images: int
    num_val_images: int
    num_classes: int
    written: bool
    """False if it was all there before."""


def write_demo(out: str | Path, *, progress: Callable[[int, int], None] | None = None) -> DemoData:
    """Write the demo data set into the folder `out`, which must not exist, be empty, or hold that data set.

    progress: told (images written, images in all).
    Raises DataError if there is something else in `out` or it can't be written.
    """
    out = Path(out)
    pictures, labels = _digits()
    relative_paths = _relative_paths(labels)
    aside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        is_there = all((out / path).is_file() for path in relative_paths)
        if not is_there:
            if out.exists() and any(out.iterdir()):
                raise DataError(f"{out} isn't empty and doesn't hold the demo data set. Name another folder.")
            for done, (path, picture) in enumerate(zip(relative_paths, pictures, strict=True), start=1):
                (aside / path).parent.mkdir(parents=True, exist_ok=True)
                _as_rgb_image(picture).save(aside / path, quality=_JPEG_QUALITY)
                if progress is not None:
                    progress(done, len(relative_paths))
            aside.replace(out)
    except OSError as error:
        raise DataError(f"The demo data set can't be written to {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return DemoData(
        root=out,
        num_train_images=len(labels) - NUM_VAL_IMAGES,
        num_val_images=NUM_VAL_IMAGES,
        num_classes=len(np.unique(labels)),
        written=not is_there,
    )


def _digits() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError("The demo data set comes with scikit-learn: pip install 'dnctl[demo]'") from error
    digits = load_digits()
    return digits.images, digits.target


def _relative_paths(labels: npt.NDArray[np.int64]) -> list[str]:
    """Where each picture goes: SPLIT/CLASS/NUMBER.jpg. Validation takes evenly spaced ones of the pictures by class."""
    num_images = len(labels)
    rank_by_class = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
    is_val = (rank_by_class + 1) * NUM_VAL_IMAGES // num_images > rank_by_class * NUM_VAL_IMAGES // num_images
    return [
        f"{'val' if val else 'train'}/{label}/{number:04d}.jpg"
        for number, (label, val) in enumerate(zip(labels, is_val, strict=True))
    ]


def _as_rgb_image(picture: npt.NDArray[np.float64]) -> Image.Image:
    grey = Image.fromarray((picture * (255 / _MAX_DIGIT_VALUE)).astype(np.uint8))
    return grey.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC).convert("RGB")
