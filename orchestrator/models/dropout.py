"""Dropout whose masks belong to samples: a function of (seed, epoch, sample, layer, element), not of a generator.

So a sample loses the same values whichever rank, micro-batch or attempt it is trained in. Philox's 32-bit words are
used in halves, so the probability is rounded to a multiple of 1/65536, and the scale of what is kept fits that.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestrator.philox import Stream, key_from_seed, philox4x32

_LEVELS = 1 << 16
_LANES_PER_COUNTER = 8
_LAYER_SHIFT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleKeys:
    """Which samples the next forward pass holds, in the order of the batch.

    indices: int64[n], the samples' numbers in the manifest, on the model's device.
    """

    seed: int
    epoch: int
    indices: Tensor


class SampleDropout(nn.Module):
    """Zeroes each value with probability p in training and scales the rest by 1 / (1 - p).

    p: in [0, 1). layer: tells the dropouts of a model apart; the model numbers them.
    Without sample keys it is plain dropout, drawn from torch's generator.
    """

    def __init__(self, p: float, *, layer: int = 0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability is {p}, must be in [0, 1)")
        self.p = p
        self.layer = layer
        self.keys: SampleKeys | None = None

    def forward(self, features: Tensor) -> Tensor:
        """features: [n, ...], the batch first, any memory format; kept in the result."""
        if not self.training or self.p == 0:
            return features
        if self.keys is None:
            return F.dropout(features, self.p)
        scale = _LEVELS / (_LEVELS - self._threshold)
        return features * self.kept(features.shape, self.keys) * scale

    @property
    def _threshold(self) -> int:
        return min(round(self.p * _LEVELS), _LEVELS - 1)

    def kept(self, shape: torch.Size, keys: SampleKeys) -> Tensor:
        """Which values stay: bool[shape], contiguous. shape: [n, ...] with n samples in keys."""
        if shape[0] != len(keys.indices):
            raise ValueError(f"the batch holds {shape[0]} samples, but {len(keys.indices)} were announced")
        num_values = shape[1:].numel()
        num_counters = -(-num_values // _LANES_PER_COUNTER)
        words = philox4x32(
            (
                torch.arange(num_counters, device=keys.indices.device)[None, :],
                Stream.DROPOUT + (self.layer << _LAYER_SHIFT),
                keys.indices[:, None],
                keys.epoch,
            ),
            key_from_seed(keys.seed),
        )
        lanes = [lane >= self._threshold for word in words for lane in (word & (_LEVELS - 1), word >> 16)]
        return torch.stack(lanes, dim=-1).flatten(1)[:, :num_values].reshape(shape)

    def extra_repr(self) -> str:
        """What printing the model shows."""
        return f"p={self.p}, layer={self.layer}"


def set_sample_keys(model: nn.Module, *, seed: int, epoch: int, indices: Tensor) -> None:
    """Tell all dropouts of a model which samples the next forward passes hold, until told anew.

    indices: int64[n]; moved to the model's device here, once for all layers.
    """
    keys = SampleKeys(seed=seed, epoch=epoch, indices=indices.to(next(model.parameters()).device))
    _assign(model, keys)


def clear_sample_keys(model: nn.Module) -> None:
    """Go back to plain dropout."""
    _assign(model, None)


def _assign(model: nn.Module, keys: SampleKeys | None) -> None:
    for module in model.modules():
        if isinstance(module, SampleDropout):
            module.keys = keys
