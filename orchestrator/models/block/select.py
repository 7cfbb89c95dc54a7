"""Which kernels run the fused block on a device."""

import logging
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch

from orchestrator.models.block.compile import NoCompilerError
from orchestrator.models.block.kernels import Kernels
from orchestrator.models.block.native import NativeKernels
from orchestrator.models.block.plain import PlainKernels

OLDEST_FOR_TRITON = (8, 0)
"""Compute capability: the first whose tensor cores take bfloat16."""
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


def has_triton(device_type: str) -> bool:
    """Whether Triton's kernels run on such a device here."""
    return (
        device_type == "cuda"
        and find_spec("triton") is not None
        and torch.cuda.get_device_capability() >= OLDEST_FOR_TRITON
    )
