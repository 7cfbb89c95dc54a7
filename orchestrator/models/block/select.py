"""Which kernels run the fused block on a device."""

import logging
import os
import shutil
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
SLOW = "the fused block runs in plain operations, slower than the reference"
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
        _log.warning("%s: %s", SLOW, error)
        return PlainKernels()


@cache
def has_triton(device_type: str) -> bool:
    """Whether Triton's kernels run on such a device here. To start them it compiles a file of C."""
    if device_type != "cuda" or find_spec("triton") is None or torch.cuda.get_device_capability() < OLDEST_FOR_TRITON:
        return False
    if os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"):
        return True
    _log.warning("%s: Triton needs a C compiler: install gcc, or name another one in CC", SLOW)
    return False
