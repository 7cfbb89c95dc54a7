"""Kernels run on the GPU where there is one, otherwise in Triton's interpreter: the same tests for both."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel's module is imported, so before any of them


@pytest.fixture
def device() -> torch.device:
    """Where kernels run here."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
