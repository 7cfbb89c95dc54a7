"""Kernels run on the GPU where there is one, otherwise in Triton's interpreter: the same tests for both."""

import pytest
import torch


@pytest.fixture
def device() -> torch.device:
    """Where kernels run here."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
