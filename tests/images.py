"""Small data sets for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_folder(
    root: Path, *, num_train: int, num_val: int, num_classes: int, size: tuple[int, int] = (40, 36)
) -> Path:
    """Write JPEGs in ImageNet layout, dealt to the classes in turn; the classes differ in brightness."""
    generator = np.random.default_rng(0)
    for split, num_images in (("train", num_train), ("val", num_val)):
        for number in range(num_images):
            label = number % num_classes
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            level = 40 + 160 * label // max(num_classes - 1, 1)
            pixels = generator.normal(level, 40, (size[1], size[0], 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=90)
    return root
