"""Images as a loader hands them over, made into what a network takes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from orchestrator.data.color import ColorMaps


class Normalize:
    """uint8[n, h, w, c] in 0…255 to float32[n, c, h, w]: colours changed, then mean and standard deviation taken out.

    What is done to colours is computed in floating point and never rounded to 8 bits or clamped.
    """

    def __init__(
        self, *, mean: Sequence[float], std: Sequence[float], device: torch.device, channels_last: bool
    ) -> None:
        """mean, std: of each channel, on values in [0, 1]."""
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self._std = torch.tensor(std, dtype=torch.float32, device=device)
        self._scale = (1 / (255 * torch.tensor(std, dtype=torch.float64))).float().to(device).view(1, -1, 1, 1)
        self._shift = -(torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64))
        self._shift = self._shift.float().to(device).view(1, -1, 1, 1)
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, images_nhwc: Tensor, color: ColorMaps | None = None) -> Tensor:
        """Normalise a batch, which may be empty. color: what is done to each image before; None for nothing."""
        images = images_nhwc.permute(0, 3, 1, 2).to(torch.float32, memory_format=self._memory_format)
        if color is None:
            return images.mul_(self._scale).add_(self._shift)
        # Sums of a row are whole numbers that float32 holds exactly, so means are the same however they are summed.
        num_pixels = max(1, images.shape[2] * images.shape[3])
        means = (images.sum(3).sum(2, dtype=torch.float64) / (255 * num_pixels)).float()
        shift = (_apply(color.mean, means) + color.shift - self._mean) / self._std
        scale = color.pixel * self._scale.view(1, 3, 1)
        return _mix_channels(images, scale, shift)


def _apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """[n, 3, 3] times [n, 3], in float32 whatever autocast says."""
    return (matrices * vectors[:, None, :]).sum(2)


def _mix_channels(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Of every pixel x, scale @ x + shift; scale [n, 3, 3] and shift [n, 3] of its image.

    By elementwise operations, whose result for an image doesn't depend on the others of its batch.
    """
    mixed = torch.empty_like(images)
    for channel in range(3):
        out = mixed[:, channel]
        torch.mul(images[:, 0], scale[:, channel, 0, None, None], out=out)
        out.add_(shift[:, channel, None, None])
        for source in (1, 2):
            out.addcmul_(images[:, source], scale[:, channel, source, None, None])
    return mixed
