"""Images as a loader hands them over, made into what a network takes."""

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor

from orchestrator.data.color import ColorMaps
from orchestrator.kernels.availability import has_triton


class Normalize:
    """uint8[n, h, w, c] in 0…255 to float[n, c, h, w]: colours changed, then mean and standard deviation taken out.

    What is done to colours is computed in float32 and never rounded to 8 bits or clamped. On a GPU one kernel does it,
    and rounds to what autocast would give the first convolution; elsewhere the result is float32.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        channels_last: bool,
        use_kernel: bool | None = None,
    ) -> None:
        """mean, std: of each channel, on values in [0, 1]. use_kernel: None: where Triton runs."""
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self._std = torch.tensor(std, dtype=torch.float32, device=device)
        self._scale = (1 / (255 * torch.tensor(std, dtype=torch.float64))).float().to(device)
        self._shift = -(torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64))
        self._shift = self._shift.float().to(device)
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        if use_kernel is None:
            use_kernel = has_triton(device.type)
        self._kernels = import_module("orchestrator.kernels.normalize") if use_kernel else None

    def __call__(self, images_nhwc: Tensor, color: ColorMaps | None = None) -> Tensor:
        """Normalise a batch, which may be empty. color: what is done to each image before; None for nothing."""
        if self._kernels is not None:
            return self._by_kernel(images_nhwc, color)
        if color is None:
            scale, shift = (values.view(1, -1, 1, 1) for values in (self._scale, self._shift))
            return self._as_float(images_nhwc).mul_(scale).add_(shift)
        n, height, width, _ = images_nhwc.shape
        mixed = torch.empty((n, 3, height, width), device=images_nhwc.device, memory_format=self._memory_format)
        # One by one on a CPU, where an image stays in the cache; at once on a GPU, where a launch costs more than work.
        step = max(1, n if images_nhwc.is_cuda else 1)
        for start in range(0, n, step):
            part = slice(start, start + step)
            images = self._as_float(images_nhwc[part])
            # Sums of a row are whole numbers that float32 holds exactly: the same however they are summed.
            scale, shift = self._maps(color, part, images.sum(3).sum(2, dtype=torch.float64), images[0, 0].numel())
            _mix_channels(images, scale, shift, out=mixed[part])
        return mixed

    def _by_kernel(self, images_nhwc: Tensor, color: ColorMaps | None) -> Tensor:
        assert self._kernels is not None
        device = images_nhwc.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        if color is None:
            scale, shift = torch.diag(self._scale)[None], self._shift[None]
        else:
            sums = self._kernels.channel_sums(images_nhwc).double()
            scale, shift = self._maps(color, slice(None), sums, images_nhwc.shape[1] * images_nhwc.shape[2])
        mixed: Tensor = self._kernels.mix_channels(
            images_nhwc, scale, shift, mixes=color is not None, dtype=dtype, memory_format=self._memory_format
        )
        return mixed

    def _as_float(self, images_nhwc: Tensor) -> Tensor:
        return images_nhwc.permute(0, 3, 1, 2).to(torch.float32, memory_format=self._memory_format)

    def _maps(self, color: ColorMaps, part: slice, sums: Tensor, num_pixels: int) -> tuple[Tensor, Tensor]:
        """What becomes of each image's pixels: scale [n, 3, 3] and shift [n, 3]. sums: float64[n, 3], over pixels."""
        means = (sums / (255 * max(1, num_pixels))).float()
        shift = (_apply(color.mean[part], means) + color.shift[part] - self._mean) / self._std
        return color.pixel[part] * self._scale.view(1, 3, 1), shift


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
