"""Kernels that are compiled while a run starts: where they are kept for its next start, and what they cost."""

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch

CACHE_VARIABLE: Final = "TRITON_CACHE_DIR"


def keep_compiled(folder: Path) -> None:
    """Let Triton keep its results in this folder, unless the environment says where already.

    In the run directory workers on other nodes find it, too: who takes over after a preemption compiles nothing.
    """
    os.environ.setdefault(CACHE_VARIABLE, str(folder / "triton"))


class CompileClock:
    """Seconds that Triton has spent compiling in this process since the clock was made; 0 where there is no GPU."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        if device.type == "cuda" and find_spec("triton") is not None:
            import_module("triton").knobs.compilation.listener = self.add

    def add(self, *, times: Any, **_: Any) -> None:
        """Triton's call after each kernel, compiled or found in the cache. times: in microseconds."""
        self.seconds += times.total / 1e6
