"""Triton kernels, and functions that launch them on plain tensors; imported only where `availability` says so."""

import os

# A product and a sum are rounded once, as GPUs do it in one instruction; Triton wants to hear it.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
