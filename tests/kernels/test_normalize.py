"""Normalised by a kernel, images come out as they do in plain operations."""

import numpy as np
import pytest
import torch

from orchestrator.data.color import ColorMaps, ColorTransform, draw_color_maps
from orchestrator.train.images import Normalize

SHAPES = [(3, 37, 41), (2, 32, 32), (1, 1, 1), (0, 8, 8)]


def both(device, *, channels_last):
    options = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "channels_last": channels_last}
    return (
        Normalize(**options, device=device, use_kernel=True),
        Normalize(**options, device=device, use_kernel=False),
    )


def some_images(shape, device) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)


def some_colors(n: int, device) -> ColorMaps:
    transform = ColorTransform(jitter=0.4, lighting=0.1)
    return draw_color_maps(transform, seed=3, epoch=1, indices=np.arange(n)).to(device)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("with_colors", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_kernel_normalises_as_plain_operations_do(device, shape, with_colors, channels_last):
    kernel, plain = both(device, channels_last=channels_last)
    images, colors = some_images(shape, device), some_colors(shape[0], device) if with_colors else None
    ours, theirs = kernel(images, colors), plain(images, colors)
    assert ours.dtype == torch.float32
    assert ours.stride() == theirs.stride()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_values_are_rounded_once_to_what_the_network_takes(device, dtype):
    kernel, plain = both(device, channels_last=True)
    images, colors = some_images((2, 20, 20), device), some_colors(2, device)
    with torch.autocast(device.type, dtype=dtype):
        ours = kernel(images, colors)
    assert ours.dtype == dtype
    exact = plain(images, colors)
    spacing = torch.finfo(dtype).eps * exact.abs().clamp(min=torch.finfo(dtype).tiny)
    assert ((ours.float() - exact).abs() <= 0.5 * spacing + 1e-6).all()
