"""Images as a loader hands them over, made into what a network takes."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalize:
    """uint8[n, h, w, c] in 0…255 to float32[n, c, h, w] with the data set's mean and standard deviation taken out."""

    def __init__(
        self, *, mean: Sequence[float], std: Sequence[float], device: torch.device, channels_last: bool
    ) -> None:
        """mean, std: of each channel, on values in [0, 1]."""
        self._scale = (1 / (255 * torch.tensor(std, dtype=torch.float64))).float().to(device).view(1, -1, 1, 1)
        self._shift = -(torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64))
        self._shift = self._shift.float().to(device).view(1, -1, 1, 1)
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, images_nhwc: Tensor) -> Tensor:
        """Normalise a batch, which may be empty."""
        images = images_nhwc.permute(0, 3, 1, 2).to(torch.float32, memory_format=self._memory_format)
        return images.mul_(self._scale).add_(self._shift)
