"""Which kernels run the fused block on a device."""

import logging
from functools import cache
from importlib import import_module

import torch

from orchestrator.kernels.availability import has_triton
from orchestrator.models.block.compile import NoCompilerError
from orchestrator.models.block.kernels import Kernels
from orchestrator.models.block.native import NativeKernels
from orchestrator.models.block.plain import PlainKernels

_log = logging.getLogger(__name__)


def kernels_of(device: torch.device) -> Kernels:
    """The kernels for tensors on that device."""
    return kernels_for(device.type)


@cache
def kernels_for(device_type: str) -> Kernels:
    """The fastest that this machine has for "cpu", "cuda" or another of torch's types of device."""
    if device_type == "cpu":
        return _for_cpus()
    if has_triton(device_type):
        kernels: Kernels = import_module("orchestrator.models.block.triton").TritonKernels()
        return kernels
    return PlainKernels()


def _for_cpus() -> Kernels:
    try:
        return NativeKernels()
    except NoCompilerError as error:
        _log.warning("the fused block runs in plain operations, slower than the reference: %s", error)
        return PlainKernels()
