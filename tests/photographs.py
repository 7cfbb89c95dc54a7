"""Images like ImageNet's for tests: about 500x375, chroma-subsampled, sharp enough that a wrong pixel shows."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((500, 375), (375, 500), (333, 500), (487, 361))


def photograph(seed: int, width: int, height: int) -> Image.Image:
    """Noise at several scales: smooth areas, edges and grain, in grey and in colour."""
    generator = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128.0)
    for cell in (96, 32, 12, 4, 1):
        coarse = generator.normal(size=(height // cell + 2, width // cell + 2, 3)) * 12 + 127.5
        layer = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        pixels += 1.4 * (np.asarray(layer) - 127.5)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_photographs(root: Path, *, num_images: int, splits: tuple[str, ...] = ("train",)) -> Path:
    """Write photographs of two classes in ImageNet layout."""
    for split in splits:
        for number in range(num_images):
            path = root / split / ("cat", "dog")[number % 2] / f"{number:03d}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = photograph(number, *SIZES[number % len(SIZES)])
            image.save(path, format="JPEG", quality=93, subsampling="4:2:0")
    return root
