"""Which kernels run the fused block on a device."""

from functools import cache

import torch

from orchestrator.models.block.kernels import Kernels
from orchestrator.models.block.plain import PlainKernels


@cache
def kernels_for(device_type: str) -> Kernels:
    """The fastest that this machine has for "cpu", "cuda" or another of torch's types of device."""
    return _PLAIN


_PLAIN = PlainKernels()


def kernels_of(device: torch.device) -> Kernels:
    """The kernels for tensors on that device."""
    return kernels_for(device.type)
