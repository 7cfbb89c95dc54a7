"""The stem's max pool, where torch's own isn't the fastest there is."""

from importlib import import_module

import torch
from torch import Tensor, nn

from orchestrator.kernels.availability import has_triton


class FusedMaxPool2d(nn.MaxPool2d):
    """A 3x3 max pool by 2, with the same result in less time on a GPU that Triton's kernels run on."""

    def __init__(self) -> None:
        super().__init__(kernel_size=3, stride=2, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """input: [n, c, h, w]; [n, c, (h + 1) // 2, (w + 1) // 2]."""
        if has_triton(input.device.type) and input.dtype is not torch.float64:
            pooled: Tensor = import_module("orchestrator.models.block.triton.pool").max_pool(input)
        else:
            pooled = super().forward(input)
        return pooled
