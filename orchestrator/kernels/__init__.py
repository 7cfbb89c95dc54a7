"""Triton kernels, and functions that launch them on plain tensors. Imported only where a GPU or the interpreter is."""
