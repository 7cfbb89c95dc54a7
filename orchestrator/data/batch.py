"""What a loader is asked for and what it gives: one micro-batch each."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from orchestrator.data.color import ColorMaps


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """The samples of one micro-batch, in order."""

    epoch: int
    """Counted from 0; with the seed it decides the crops."""
    indices: npt.NDArray[np.int64]
    """int64[n], rows of the manifest; n may be 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The images of one request, in its order."""

    images: torch.Tensor
    """uint8[n * views, height, width, 3] (NHWC, RGB) on the loader's device, not normalised. Views of a sample follow
    one another; there is one, unless the transform makes more."""
    labels: torch.Tensor
    """int64[n] on the loader's device."""
    indices: npt.NDArray[np.int64]
    """int64[n] on the host, as requested."""
    epoch: int
    color: ColorMaps | None = None
    """How the colours of each image are still to be changed, on the loader's device; None: not at all."""
