"""Kernels run on the GPU where there is one, otherwise in Triton's interpreter: the same tests for both."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _whole_float32(monkeypatch):
    """A GPU would otherwise cut float32 factors to tf32, in our kernels and in torch's convolutions."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def device() -> torch.device:
    """Where kernels run here."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
