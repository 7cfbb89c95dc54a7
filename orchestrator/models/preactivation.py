"""Norm, ReLU and convolution of concatenated maps: the composite function H of the paper's section 3, recomputable.

Recomputed, a segment keeps its inputs alone: the concatenation, the normalised maps and their ReLU are made again in
the backward pass (Pleiss et al., "Memory-Efficient Implementation of DenseNets", 2017). The convolution is not:
recomputation stops at the last tensor that backward needs. Gradients are bitwise those without recomputation, and
running statistics are updated by the forward pass alone.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_Context = AbstractContextManager[None]


def preactivated_conv(norm: nn.BatchNorm2d, conv: nn.Conv2d, *maps: Tensor, recompute: bool) -> Tensor:
    """conv(relu(norm(maps side by side))).

    maps: [n, c_i, h, w] each, together as many channels as norm has.
    recompute: make what lies between maps and result again when backward needs it, instead of keeping it.
    """
    if not recompute:
        return _composite(norm, conv, *maps)
    result: Tensor = checkpoint(
        _composite,
        norm,
        conv,
        *maps,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing here is random: dropout comes behind the convolution
        context_fn=partial(_forward_and_recomputation, norm),
    )
    return result


def _composite(norm: nn.BatchNorm2d, conv: nn.Conv2d, *maps: Tensor) -> Tensor:
    features = maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)
    result: Tensor = conv(F.relu(norm(features), inplace=True))
    return result


def _forward_and_recomputation(norm: nn.BatchNorm2d) -> tuple[_Context, _Context]:
    return nullcontext(), _frozen_statistics(norm)


@contextmanager
def _frozen_statistics(norm: nn.BatchNorm2d) -> Iterator[None]:
    """Let norm update copies of its buffers (running statistics, number of batches) instead of its own."""
    own = dict(norm.named_buffers(recurse=False))
    for name, buffer in own.items():
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for name, buffer in own.items():
            setattr(norm, name, buffer)
