"""Whether Triton's kernels run on this machine; it compiles a file of C for Python to start them."""

import logging
import os
import shutil
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

OLDEST_FOR_TRITON = (8, 0)
"""Compute capability: the first whose tensor cores take bfloat16."""
_log = logging.getLogger(__name__)


@cache
def has_triton(device_type: str) -> bool:
    """Whether Triton's kernels run on this kind of device ("cuda", "cpu", …) here; warns where something is missing."""
    if device_type != "cuda" or find_spec("triton") is None or torch.cuda.get_device_capability() < OLDEST_FOR_TRITON:
        return False
    missing = _missing()
    if missing is not None:
        _log.warning("Triton's kernels can't start here, and slower operations stand in for them: %s", missing)
    return missing is None


def _missing() -> str | None:
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "there is no C compiler: install gcc, or name another one in CC"
    header = Path(sysconfig.get_path("include", "posix_prefix")) / "Python.h"
    if not header.is_file():
        return f"there is no {header}: install Python's headers (python3-dev)"
    return None
