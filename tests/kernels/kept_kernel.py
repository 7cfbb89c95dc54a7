"""Compiles a kernel as a worker does, for a GPU that needn't be there: python -m tests.kernels.kept_kernel FOLDER.

Prints the seconds that it took.
"""

import sys
from pathlib import Path

import torch
from triton.runtime import driver

from orchestrator.kernels.normalize import _sum_kernel
from orchestrator.train.compilation import CompileClock, keep_compiled
from tests.kernels.compile_kernels import AbsentGpu

if __name__ == "__main__":
    keep_compiled(Path(sys.argv[1]))
    clock = CompileClock(torch.device("cuda"))
    driver.set_active(AbsentGpu(90))
    _sum_kernel.warmup(torch.uint8, torch.int32, 50176, BLOCK=1024, grid=(1, 1))
    print(clock.seconds)
