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
        if color is None:
            return self._as_float(images_nhwc).mul_(self._scale).add_(self._shift)
        n, height, width, _ = images_nhwc.shape
        mixed = torch.empty((n, 3, height, width), device=images_nhwc.device, memory_format=self._memory_format)
        # One by one on a CPU, where an image stays in the cache; at once on a GPU, where a launch costs more than work.
        step = max(1, n if images_nhwc.is_cuda else 1)
        for start in range(0, n, step):
            part = slice(start, start + step)
            self._change_colors(images_nhwc[part], color, part, out=mixed[part])
        return mixed

    def _as_float(self, images_nhwc: Tensor) -> Tensor:
        return images_nhwc.permute(0, 3, 1, 2).to(torch.float32, memory_format=self._memory_format)

    def _change_colors(self, images_nhwc: Tensor, color: ColorMaps, part: slice, *, out: Tensor) -> None:
        """Normalise images, by the maps of their part of the batch, into `out`."""
        images = self._as_float(images_nhwc)
        # Sums of a row are whole numbers that float32 holds exactly, so means are the same however they are summed.
        num_pixels = max(1, images.shape[2] * images.shape[3])
        means = (images.sum(3).sum(2, dtype=torch.float64) / (255 * num_pixels)).float()
        shift = (_apply(color.mean[part], means) + color.shift[part] - self._mean) / self._std
        scale = color.pixel[part] * self._scale.view(1, 3, 1)
        _mix_channels(images, scale, shift, out=out)


def _apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """[n, 3, 3] times [n, 3], in float32 whatever autocast says."""
    return (matrices * vectors[:, None, :]).sum(2)


def _mix_channels(images: Tensor, scale: Tensor, shift: Tensor, *, out: Tensor) -> None:
    """Of every pixel x, scale @ x + shift; scale [n, 3, 3] and shift [n, 3] of its image.

    By elementwise operations, whose result for an image doesn't depend on the others of its batch.
    """
    for channel in range(3):
        mixed = out[:, channel]
        torch.mul(images[:, 0], scale[:, channel, 0, None, None], out=mixed)
        mixed.add_(shift[:, channel, None, None])
        for source in (1, 2):
            mixed.addcmul_(images[:, source], scale[:, channel, source, None, None])
