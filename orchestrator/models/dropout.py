"""Dropout and stochastic depth whose masks belong to samples: functions of (seed, epoch, sample, layer, element).

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

    epoch: a number, or an int64 scalar on the model's device.
    indices: int64[n], the samples' numbers in the manifest, on the model's device.
    """

    seed: int
    epoch: int | Tensor
    indices: Tensor


class SampleMask(nn.Module):
    """A mask over a batch, drawn for each of its samples.

    p: probability of losing a value, in [0, 1). layer: tells the masks of a model apart; `number_masks` sets it.
    """

    def __init__(self, p: float, *, layer: int = 0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability is {p}, must be in [0, 1)")
        self.p = p
        self.layer = layer
        self.keys: SampleKeys | None = None

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


class SampleDropout(SampleMask):
    """Zeroes each value with probability p in training and scales the rest by 1 / (1 - p).

    Without sample keys it is plain dropout, drawn from torch's generator.
    """

    def forward(self, features: Tensor) -> Tensor:
        """features: [n, ...], the batch first, any memory format; kept in the result."""
        if not self.drops:
            return features
        if self.keys is None:
            return F.dropout(features, self.p)
        return features * self.kept(features.shape, self.keys) * self.scale

    @property
    def drops(self) -> bool:
        """Whether the next batch loses anything."""
        return self.training and self.p > 0

    @property
    def scale(self) -> float:
        """What the kept values are multiplied by."""
        return 1 / (1 - self.p) if self.keys is None else _LEVELS / (_LEVELS - self._threshold)

    def draw(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Which values of the next batch stay: bool[shape], contiguous."""
        if self.keys is None:
            return torch.rand(shape, device=device) >= self.p
        return self.kept(shape, self.keys)


class StochasticDepth(SampleMask):
    """Takes the whole branch of a residual unit from a sample with probability p in training.

    In evaluation the branch is scaled by 1 - p, as Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, have
    it. They draw once for a mini-batch; here each sample has a draw of its own, since a batch is divided among ranks.
    Without sample keys it is drawn from torch's generator.
    """

    def forward(self, branch: Tensor) -> Tensor:
        """branch: [n, ...], what the unit adds to its shortcut."""
        if self.p == 0:
            return branch
        if not self.training:
            return branch * (1 - self.p)
        mask_shape = torch.Size((branch.shape[0], *[1] * (branch.dim() - 1)))
        if self.keys is None:
            return branch * (torch.rand(mask_shape, device=branch.device) >= self.p)
        return branch * self.kept(mask_shape, self.keys)


def number_masks(model: nn.Module) -> None:
    """Give each mask of a model the number that it is drawn with: their order in the network."""
    masks = (module for module in model.modules() if isinstance(module, SampleMask))
    for layer, mask in enumerate(masks):
        mask.layer = layer


def set_sample_keys(model: nn.Module, *, seed: int, epoch: int | Tensor, indices: Tensor) -> None:
    """Tell all masks of a model which samples the next forward passes hold, until told anew.

    indices: int64[n]; moved to the model's device here, once for all layers.
    """
    keys = SampleKeys(seed=seed, epoch=epoch, indices=indices.to(next(model.parameters()).device))
    _assign(model, keys)


def clear_sample_keys(model: nn.Module) -> None:
    """Go back to torch's generator."""
    _assign(model, None)


def _assign(model: nn.Module, keys: SampleKeys | None) -> None:
    for module in model.modules():
        if isinstance(module, SampleMask):
            module.keys = keys
