"""Groups of images that are normalised each by its own statistics, in one pass of the network.

A model's fused modules are told how many images each group of the next batch has; without being told, or in
evaluation, a batch is one group.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from orchestrator.models.block.kernels import Gradient, Grid, Moments


class Grouped(nn.Module):
    """A module that normalises several groups of a batch in one pass."""

    group_sizes: tuple[int, ...] | None = None
    """Images of each group of the next training batch, in the batch's order; None for a single group."""

    def grid(self, features: Tensor, shared: "SharedGroup") -> Grid:
        """How features [n, c, h, w] fall into groups. Raises ValueError if the groups have other than n images."""
        num_images, _, height, width = features.shape
        sizes = self.group_sizes if self.training and self.group_sizes is not None else (num_images,)
        if sum(sizes) != num_images:
            raise ValueError(f"the batch holds {num_images} images, but groups of {sizes} were announced")
        num_values = shared.counts(tuple(size * height * width for size in sizes), features.device)
        return Grid(group_sizes=sizes, height=height, width=width, num_values=num_values)


def set_group_sizes(model: nn.Module, group_sizes: Sequence[int] | None) -> None:
    """Tell a model how the next training batches fall into groups, until told anew; None: each batch is one group."""
    sizes = None if group_sizes is None else tuple(group_sizes)
    for module in model.modules():
        if isinstance(module, Grouped):
            module.group_sizes = sizes


def takes_groups(model: nn.Module) -> bool:
    """Whether every batch norm of the model is run by a module that takes several groups at once."""
    inside = {norm for module in model.modules() if isinstance(module, Grouped) for norm in module.modules()}
    return all(norm in inside for norm in model.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm))


class SharedGroup:
    """The ranks that share a group of images, or, without a process group, this one alone."""

    def __init__(self, process_group: "dist.ProcessGroup | None") -> None:
        self._process_group = process_group

    def counts(self, own: tuple[int, ...], device: torch.device) -> tuple[int, ...]:
        """Values of a channel in each group, over all ranks."""
        if self._process_group is None:
            return own
        counts = torch.tensor(own, dtype=torch.float64, device=device)
        dist.all_reduce(counts, group=self._process_group)
        return tuple(int(count) for count in counts.tolist())

    def join_moments(self, moments: Moments, grid: Grid) -> None:
        """Make each rank's moments those of the whole group; an empty rank's must be zeros."""
        if self._process_group is None:
            return
        pixels = grid.height * grid.width
        own = _column([size * pixels for size in grid.group_sizes], moments.mean)
        whole = _column(grid.num_values, moments.mean).clamp(min=1)
        mean = moments.mean * own
        dist.all_reduce(mean, group=self._process_group)
        mean /= whole
        var = (moments.var + (moments.mean - mean).square()) * own
        dist.all_reduce(var, group=self._process_group)
        moments.mean.copy_(mean)
        moments.var.copy_(var / whole)

    def join_sums(self, gradient: Gradient) -> None:
        """Sum a and b of a gradient over the ranks, as soon as all of its readers have added to it."""
        if self._process_group is None:
            return
        sums = torch.stack([gradient.a, gradient.b])
        dist.all_reduce(sums, group=self._process_group)
        gradient.a.copy_(sums[0])
        gradient.b.copy_(sums[1])


def shared_group_of(norm: nn.Module) -> SharedGroup:
    """The ranks over which a batch norm takes its statistics: its attribute `process_group`, if it trains with one."""
    return SharedGroup(getattr(norm, "process_group", None) if norm.training else None)


def _column(numbers: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)[:, None]
