"""Resizes decoded images on the CPU; both loaders end with it, so they differ in how they read and decode alone.

It is torch's antialiased uint8 kernel, which torchvision uses for tensors: the filters are PIL's, at a third of PIL's
time, with weights of 15 bits to PIL's 22. What comes out is within 1 of 255 of PIL (one value in 20 million is off by
2, after a cubic resize one in 3 million). DALI's own resize takes three times as long and treats borders otherwise:
where its filter hangs over the edge it repeats the edge's pixels, which changes the outermost pixels by up to 6.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from orchestrator.data.transforms import Geometry, Interpolation

Pixels = npt.NDArray[np.uint8]

_PIXEL = np.dtype("V3")  # three bytes that move together


def resize_windows(box: Pixels, geometry: Geometry, row: int, interpolation: Interpolation, out: Pixels) -> None:
    """Resize a box, cut out its windows and mirror them, by the numbers in `geometry`; row: the image's.

    box: uint8[height, width, 3], cut out of the decoded image. out: uint8[views, side, side, 3], written to.
    """
    width, height = geometry.resized[row].tolist()
    if box.shape[:2] != (height, width):
        box = resize(torch.from_numpy(box), width, height, interpolation).numpy()
    for view in range(len(out)):
        _cut_window(box, geometry, row * len(out) + view, out[view])


def _cut_window(box: Pixels, geometry: Geometry, window_row: int, out: Pixels) -> None:
    height, width, _ = box.shape
    left, top = geometry.window_origins[window_row].tolist()
    side = len(out)
    if geometry.mirrored[window_row]:
        out = out[:, ::-1]
    if min(left, top) < 0 or max(left + side - width, top + side - height) > 0:
        out[:] = geometry.fill
        out = out[max(0, -top) : height - top, max(0, -left) : width - left]
    # Copied by NumPy: torch would start threads of its own for it, in each of the loader's threads.
    window = box[max(0, top) : top + side, max(0, left) : left + side]
    out.view(_PIXEL)[:] = window.view(_PIXEL)


def resize(image_hwc: torch.Tensor, width: int, height: int, interpolation: Interpolation) -> torch.Tensor:
    """Resize an image, uint8[h, w, 3], to uint8[height, width, 3]."""
    source_height, source_width, _ = image_hwc.shape
    image_nchw = image_hwc[None].permute(0, 3, 1, 2)  # in this order torch sees that channels come last, and keeps it
    if height < source_height and source_height - height > 2 * (source_width - width):
        # PIL makes the vertical pass first here, torch never does; between the passes both round to 8 bits.
        image_nchw = F.interpolate(image_nchw, size=(height, source_width), mode=interpolation, antialias=True)
    image_nchw = F.interpolate(image_nchw, size=(height, width), mode=interpolation, antialias=True)
    return image_nchw.permute(0, 2, 3, 1)[0].contiguous()
