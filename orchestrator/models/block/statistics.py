"""Batch norm's statistics as the fused modules use them: which ones normalise, and how running ones are updated."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from orchestrator.models.block.kernels import Grid, Moments, Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class NormSettings:
    """What a batch norm module asks for in one forward pass, its weight and bias apart."""

    eps: float
    running: Moments | None
    """What it normalises by, for each group; None: the moments of the batch."""

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, grid: Grid) -> "NormSettings":
        """Read them off the module. Raises ValueError where a variance would be taken of a single value, as torch."""
        if not uses_batch_moments(norm):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, var = (buffer.expand(grid.num_groups, -1) for buffer in (norm.running_mean, norm.running_var))
            return cls(eps=norm.eps, running=Moments(mean.contiguous(), var.contiguous()))
        if norm.training and 1 in grid.num_values:
            size = torch.Size((1, norm.num_features, 1, 1))
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {size}")
        return cls(eps=norm.eps, running=None)

    def norm(self, batch: Moments, weight: Tensor, bias: Tensor) -> Norm:
        """The norm of channels whose batch moments are those."""
        moments = batch if self.running is None else self.running
        return Norm(moments, weight, bias, self.eps, of_batch=self.running is None)


def uses_batch_moments(norm: nn.BatchNorm2d) -> bool:
    """Whether it normalises by the batch's own moments."""
    return norm.training or norm.running_mean is None


class NormMoments:
    """Moments that lie side by side in one matrix, and the batch norms whose columns they are."""

    def __init__(self, moments: Moments) -> None:
        self._moments = moments
        self._columns: list[tuple[nn.BatchNorm2d, int, int]] = []

    def belong(self, norm: nn.BatchNorm2d, start: int, end: int) -> None:
        """Those columns are the statistics that `norm` took of the batch."""
        if norm.training and norm.track_running_stats:
            self._columns.append((norm, start, end))

    @torch.no_grad()
    def update_running(self, grid: Grid) -> None:
        """Update all running statistics as batch norm does, once, with the mean of the groups' statistics.

        Of no images there are none: only the number of batches is counted.
        """
        norms = [norm for norm, _, _ in self._columns]
        if not norms:
            return
        torch._foreach_add_([norm.get_buffer("num_batches_tracked") for norm in norms], 1)
        counts = [count for count in grid.num_values if count]
        if not counts:
            return
        where = self._moments.mean.dtype, self._moments.mean.device
        share = _weights(tuple(float(count > 0) for count in grid.num_values), *where) / len(counts)
        unbiased = _weights(tuple(count / max(1, count - 1) for count in grid.num_values), *where)
        mean = (self._moments.mean * share).sum(0)
        var = (self._moments.var * (unbiased * share)).sum(0)
        self._lerp("running_mean", mean, norms)
        self._lerp("running_var", var, norms)

    def _lerp(self, name: str, values: Tensor, norms: Sequence[nn.BatchNorm2d]) -> None:
        buffers = [norm.get_buffer(name) for norm in norms]
        values = values.to(buffers[0].dtype)
        latest = [values[start:end] for _, start, end in self._columns]
        torch._foreach_lerp_(buffers, latest, [_momentum(norm) for norm in norms])


def _momentum(norm: nn.BatchNorm2d) -> float:
    return norm.momentum if norm.momentum is not None else 1 / float(norm.get_buffer("num_batches_tracked"))


@lru_cache(maxsize=1024)
def _weights(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """[groups, 1]; made once, since a step that is recorded as a graph must copy nothing from the host."""
    return torch.tensor(numbers, dtype=dtype, device=device)[:, None]
