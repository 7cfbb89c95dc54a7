"""Batch norm over fixed groups of images, however the groups fall on ranks.

The images of a step are divided into groups; each group is normalised with its own statistics, as if it were on a GPU
of its own. Running statistics take one update a step, from the mean of the groups' statistics. Both hold at every world
size, so the network that comes out doesn't depend on it.

`RunningStatistics` does it to any model made of torch's batch norm, from outside: while the groups of a step pass
through, the modules' momentum is 1, so that each forward pass leaves its own statistics in the buffers; the update is
made at the end of the step. All buffers are views of one tensor: a step costs a few operations, not a few a module.
`split_groups` replaces the normalisation where one group's images are on several ranks.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator.errors import PlanError
from orchestrator.models.block.activation import NormReLU2d

_ALIGNED_BYTES = 16
"""Buffers of a flat tensor begin at multiples of it: cuDNN's batch norm writes statistics 16 bytes at a time."""


class RunningStatistics:
    """All running means and variances of a model, updated once a step."""

    def __init__(self, model: nn.Module) -> None:
        """Take over the model's batch-norm buffers; their values stay, their names in the state_dict, too."""
        self._modules = [
            module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
        ]
        self._momenta = [0.1 if module.momentum is None else module.momentum for module in self._modules]
        like = next(model.parameters())
        self._aligned = _ALIGNED_BYTES // like.element_size()
        num_values = sum(2 * self._room(module) for module in self._modules)
        self.current = torch.zeros(num_values, dtype=like.dtype, device=like.device)
        """In the model's precision: what the modules' buffers show, and zeros between them."""
        self.accumulated = torch.zeros_like(self.current, dtype=torch.float64)
        """This rank's share of the sum of the groups' statistics; in float64: their order is no matter."""
        self._momentum = torch.zeros_like(self.current)
        self._num_batches = torch.zeros(len(self._modules), dtype=torch.int64, device=like.device)
        self._bind()
        self._before = self.current.clone()
        self._num_batches_before = self._num_batches.clone()

    def _room(self, module: _BatchNorm) -> int:
        """Values from where a buffer begins to where the next one does."""
        return -(-module.num_features // self._aligned) * self._aligned

    def _bind(self) -> None:
        """Move every buffer into the flat tensors and leave a view of them in its place."""
        offset = 0
        for number, module in enumerate(self._modules):
            self._momentum[offset : offset + 2 * self._room(module)] = self._momenta[number]
            for name in ("running_mean", "running_var"):
                view = self.current[offset : offset + module.num_features]
                view.copy_(getattr(module, name))
                setattr(module, name, view)
                offset += self._room(module)
            count = self._num_batches[number]
            count.copy_(module.get_buffer("num_batches_tracked"))
            module.num_batches_tracked = count

    @contextmanager
    def step(self) -> Iterator[None]:
        """The forward and backward passes of one step; `add_group` after each forward, `update` afterwards."""
        self._before.copy_(self.current)
        self._num_batches_before.copy_(self._num_batches)
        self.accumulated.zero_()
        for module in self._modules:
            module.momentum = 1.0
        try:
            yield
        finally:
            for module, momentum in zip(self._modules, self._momenta, strict=True):
                module.momentum = momentum

    def add_group(self, weight: float) -> None:
        """Count the statistics that a forward pass has just left.

        weight: the groups that they are the mean of; of a shared group 1 over the ranks that share it.
        """
        self.accumulated.add_(self.current, alpha=weight)

    def update(self, num_groups: int, *, admitted: Tensor) -> None:
        """Make the step's one update from `accumulated`, which must be summed over all ranks by now.

        admitted: bool scalar on the device; False leaves the statistics as they were before the step.
        """
        mean_of_groups = (self.accumulated / num_groups).to(self.current.dtype)
        updated = torch.lerp(self._before, mean_of_groups, self._momentum)
        torch.where(admitted, updated, self._before, out=self.current)
        torch.add(self._num_batches_before, admitted, out=self._num_batches)


class _SplitGroupNorm(torch.autograd.Function):
    """Batch norm in training mode of images that are spread over the ranks of one process group.

    Written in plain operations, so that it runs on gloo as on NCCL, and with no image at all on some of the ranks.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        group: dist.ProcessGroup,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """images: [n, c, ...]. Returns the normalised images, and the group's mean [c] and unbiased variance [c]."""
        statistics_dtype = torch.promote_types(images.dtype, torch.float32)
        values = images.to(statistics_dtype).transpose(0, 1).flatten(1)
        count = torch.full((1,), values.shape[1], dtype=statistics_dtype, device=images.device)
        sums = torch.cat([values.sum(1), count])
        dist.all_reduce(sums, group=group)
        num_values = sums[-1]
        mean = sums[:-1] / num_values
        squares = (values - mean[:, None]).square().sum(1)
        dist.all_reduce(squares, group=group)
        inverse_std = (squares / num_values + eps).rsqrt()
        shape = (1, -1) + (1,) * (images.dim() - 2)
        normalised = (images.to(statistics_dtype) - mean.view(shape)) * inverse_std.view(shape)
        output = (normalised * weight.view(shape) + bias.view(shape)).to(images.dtype)
        ctx.save_for_backward(normalised, weight, inverse_std, num_values)
        ctx.group = group  # type: ignore[attr-defined]
        unbiased_variance = squares / (num_values - 1)
        ctx.mark_non_differentiable(mean, unbiased_variance)
        return output, mean, unbiased_variance

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad_output: Tensor, _mean: Tensor, _variance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        normalised, weight, inverse_std, num_values = ctx.saved_tensors  # type: ignore[attr-defined]
        grad = grad_output.to(normalised.dtype)
        over_images = [0, *range(2, grad.dim())]
        grad_bias = grad.sum(over_images)
        grad_weight = (grad * normalised).sum(over_images)
        sums = torch.cat([grad_bias, grad_weight])
        dist.all_reduce(sums, group=ctx.group)  # type: ignore[attr-defined]
        shape = (1, -1) + (1,) * (grad.dim() - 2)
        mean_grad, mean_grad_normalised = (part.view(shape) / num_values for part in sums.chunk(2))
        grad_images = (grad - mean_grad - normalised * mean_grad_normalised) * (weight * inverse_std).view(shape)
        return grad_images.to(grad_output.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None, None


class SplitGroupBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` for a group of images that several ranks share; same parameters, same state_dict."""

    process_group: dist.ProcessGroup

    def forward(self, input: Tensor) -> Tensor:
        """input: [n, c, h, w], this rank's part of the group; n may be 0."""
        if not self.training:
            return super().forward(input)
        output: Tensor
        output, mean, variance = _SplitGroupNorm.apply(input, self.weight, self.bias, self.eps, self.process_group)
        if self.track_running_stats and self.momentum is not None:
            assert self.running_mean is not None
            assert self.running_var is not None
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
        return output


def split_groups(model: nn.Module, process_group: dist.ProcessGroup) -> None:
    """Let every batch norm of the model take its statistics over all ranks of `process_group`.

    Fused modules read that group off the norms and synchronise on their own.

    Raises PlanError for a model with another kind of batch norm, which can't be split.
    """
    for name, module in model.named_modules():
        if isinstance(module, NormReLU2d):
            module.process_group = process_group
        elif isinstance(module, _BatchNorm):
            if type(module) is not nn.BatchNorm2d:
                raise PlanError(
                    f"{name} is a {type(module).__name__}, whose groups can't be split over ranks: "
                    "set cluster.workers to at most train.batch_norm_groups"
                )
            module.__class__ = SplitGroupBatchNorm2d
            module.process_group = process_group  # type: ignore[assignment]
