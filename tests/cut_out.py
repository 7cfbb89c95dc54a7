"""A transform for tests that look at decoded pixels."""

from dataclasses import dataclass

import numpy as np

from orchestrator.data.transforms import Geometry


@dataclass(frozen=True)
class CutOut:
    """A transform that shows decoded pixels: it cuts out a box and resizes nothing."""

    boxes: np.ndarray
    output_size: int
    interpolation: str = "bilinear"
    num_views: int = 1

    def geometry(self, manifest, indices, *, seed, epoch):
        n = len(indices)
        return Geometry(
            boxes=self.boxes[indices],
            resized=np.full((n, 2), self.output_size),
            window_origins=np.zeros((n, 2), dtype=np.int64),
            mirrored=np.zeros(n, dtype=bool),
        )

    def color_maps(self, indices, *, seed, epoch):
        return None

    def check(self, manifest):
        pass
