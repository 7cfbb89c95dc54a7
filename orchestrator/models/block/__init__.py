"""The dense block: one interface, behind which an implementation may do as it likes.

A block is built from `DenseBlock`'s arguments, maps [n, in_channels, h, w] to [n, out_channels, h, w], input maps
first and then each layer's in order, and has children `denselayer1`, `denselayer2`, … that hold `norm1`, `conv1` and,
with a bottleneck, `norm2`, `conv2` as plain batch norms and convolutions. So state_dicts, weight decay and whoever
replaces batch norm's statistics from outside needn't know which implementation runs.
"""

from typing import Literal

from orchestrator.models.block.fused import FusedDenseBlock
from orchestrator.models.block.reference import BasicLayer, BottleneckLayer, DenseBlock

BlockKind = Literal["reference", "fused"]

__all__ = ["BasicLayer", "BlockKind", "BottleneckLayer", "DenseBlock", "FusedDenseBlock"]
