"""Images as matrices and back, in what precision they are computed, and moments that travel with their maps."""

import torch
from torch import Tensor

from orchestrator.models.block.kernels import Grid, Moments


def as_rows(images: Tensor) -> Tensor:
    """Images [n, c, h, w] as a matrix [rows, c]: a view where they are channels_last, a copy otherwise."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def as_images(rows: Tensor, grid: Grid) -> Tensor:
    """A matrix [rows, c] as images [n, c, h, w] in channels_last, a view."""
    images: Tensor = rows.view(grid.num_images, grid.height, grid.width, rows.shape[1])
    return images.permute(0, 3, 1, 2)


def compute_dtype(features: Tensor) -> torch.dtype:
    """What autocast asks for where it is on, or else what the features have."""
    device_type = features.device.type
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else features.dtype


def note_moments(maps: Tensor, moments: Moments) -> None:
    """Leave the moments with maps that were just made, for the norm that reads them next."""
    maps.batch_moments = moments  # type: ignore[attr-defined]


def noted_moments(maps: Tensor) -> Moments | None:
    """What was left with these maps. They are another tensor after any operation, so these are theirs."""
    moments: Moments | None = getattr(maps, "batch_moments", None)
    return moments
