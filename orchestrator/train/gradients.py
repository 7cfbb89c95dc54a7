"""Gradients summed over batch-norm groups and ranks, so that the sum doesn't depend on how groups fall on ranks.

The loss of a step is divided by the step's images, so groups and ranks add their gradients; nothing is averaged. In
deterministic mode they add in float64, where a handful of float32 numbers sum without rounding: one rank that computes
four groups in turn comes to the same bits as four ranks that compute one each (docs/adr/0003-sums-in-float64.md).

DDP would rearrange its buckets after its first backward pass, so that a resumed run added in another order than an
undisturbed one; `find_unused_parameters` keeps the arrangement as it is, for the cost of a walk over the graph
(docs/adr/0002-fixed-buckets.md).

A step that is recorded as a CUDA graph can't have DDP's hooks in it. There gradients are gathered in one piece of
memory, and summed over ranks between the recorded parts: the same sums, not hidden behind the backward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from time import perf_counter

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from orchestrator.train.world import World


class SummedGradients:
    """Backward passes of a step's groups, and the sum of their gradients over groups and ranks in `Parameter.grad`."""

    def __init__(self, model: nn.Module, world: World, *, sum_dtype: torch.dtype) -> None:
        """sum_dtype: float64, or float32 for half the traffic; more than two addends then depend on their order."""
        self._device = world.device
        self._sum_dtype = sum_dtype
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._of_earlier_groups: dict[Tensor, Tensor] = {}
        self._launched_at: float | torch.cuda.Event | None = None
        self._ddp: DistributedDataParallel | None = None
        self.module = model
        """What forward passes go through."""
        if world.size > 1:
            self._ddp = DistributedDataParallel(
                model,
                device_ids=[world.device] if world.device.type == "cuda" else None,
                forward_sync_buffers=False,
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
            )
            self._ddp.register_comm_hook(None, lambda _, bucket: self._sum_over_ranks(bucket))
            self.module = self._ddp

    def begin(self) -> None:
        """Nothing: the step before has left nothing."""

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Forward and backward of a group that is not this rank's last."""
        with self._ddp.no_sync() if self._ddp is not None else nullcontext():
            yield
        for parameter in self._parameters:
            if parameter.grad is None:  # no part of the loss: timm has models with such parameters
                continue
            if parameter in self._of_earlier_groups:
                self._of_earlier_groups[parameter] += parameter.grad
            else:
                self._of_earlier_groups[parameter] = parameter.grad.to(self._sum_dtype, copy=True)
            parameter.grad = None

    @contextmanager
    def summing(self) -> Iterator[None]:
        """Forward and backward of this rank's last group; afterwards the sum over all is in `Parameter.grad`."""
        yield
        if self._ddp is None:
            for parameter, earlier in self._of_earlier_groups.items():
                latest = 0.0 if parameter.grad is None else parameter.grad
                parameter.grad = (earlier + latest).to(parameter.dtype)
        self._of_earlier_groups.clear()

    def _sum_over_ranks(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """DDP's hook for a bucket that is ready on this rank."""
        flat = bucket.buffer()
        sums = flat.to(self._sum_dtype)
        if self._of_earlier_groups:
            for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
                offset = gradient.storage_offset() - flat.storage_offset()
                # In the bucket a gradient has its parameter's memory layout, which may be channels_last.
                if parameter in self._of_earlier_groups:
                    earlier = self._of_earlier_groups[parameter]
                    sums.as_strided(gradient.size(), gradient.stride(), offset).add_(earlier)
        future = dist.all_reduce(sums, async_op=True).get_future()
        if bucket.is_last():
            self._launched_at = _now(self._device)
        return future.then(lambda done: done.value()[0].to(flat.dtype))

    def sum_over_ranks(self) -> None:
        """Nothing: DDP's hook has done it."""

    def hand_over(self) -> None:
        """Nothing: the sum is in `Parameter.grad`."""

    def wait_s(self) -> float:
        """Seconds from the end of this rank's backward pass to the sum being there: communication not hidden.

        Call after backward; on a GPU it waits for the sum.
        """
        if self._launched_at is None:
            return 0.0
        launched_at, self._launched_at = self._launched_at, None
        now = _now(self._device)
        if isinstance(launched_at, torch.cuda.Event):
            assert isinstance(now, torch.cuda.Event)
            now.synchronize()
            return float(launched_at.elapsed_time(now)) / 1000
        assert isinstance(now, float)
        return now - launched_at


class GatheredGradients:
    """The same sums for recorded steps: on this rank, then over ranks, then handed over to `Parameter.grad`."""

    def __init__(self, model: nn.Module, world: World, *, sum_dtype: torch.dtype) -> None:
        """Ranks take over the first rank's parameters and buffers. sum_dtype: as `SummedGradients`'s."""
        self._world = world
        self._sum_dtype = sum_dtype
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._sums: Tensor | None = None
        self._is_first_group = True
        self._timing: tuple[torch.cuda.Event, torch.cuda.Event] | None = None
        self._wait_s = 0.0
        self.module = model
        """What forward passes go through."""
        if world.size > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor.detach(), src=0)

    def begin(self) -> None:
        """Forget what a recording that failed halfway has left."""
        self._is_first_group = True
        for parameter in self._parameters:
            parameter.grad = None

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Forward and backward of a group that is not this rank's last."""
        yield
        self._gather()
        self._is_first_group = False

    @contextmanager
    def summing(self) -> Iterator[None]:
        """Forward and backward of this rank's last group."""
        yield
        self._gather()
        self._is_first_group = True

    def _gather(self) -> None:
        if self._sums is None:  # no part of the loss, no gradient: timm has models with such parameters
            self._parameters = [parameter for parameter in self._parameters if parameter.grad is not None]
            num_values = sum(parameter.numel() for parameter in self._parameters)
            self._sums = torch.empty(num_values, dtype=self._sum_dtype, device=self._world.device)
        gradients = [parameter.grad for parameter in self._parameters]
        # A gradient has its parameter's memory layout, which has no gaps, but may be channels_last.
        latest = torch.cat([grad.as_strided((grad.numel(),), (1,)) for grad in gradients if grad is not None])
        if self._is_first_group:
            self._sums.copy_(latest)
        else:
            self._sums.add_(latest)
        for parameter in self._parameters:
            parameter.grad = None

    def sum_over_ranks(self) -> None:
        """Sum over ranks what this one has gathered; nothing waits for it."""
        assert self._sums is not None
        if self._world.size == 1:
            return
        began = _now(self._world.device)
        self._world.all_reduce_sum(self._sums)
        ended = _now(self._world.device)
        if isinstance(began, torch.cuda.Event):
            assert isinstance(ended, torch.cuda.Event)
            if self._timing is not None and self._timing[1].query():
                self._wait_s = float(self._timing[0].elapsed_time(self._timing[1])) / 1000
            self._timing = began, ended
        else:
            assert isinstance(ended, float)
            self._wait_s = ended - began

    def hand_over(self) -> None:
        """Put the sums into `Parameter.grad`."""
        assert self._sums is not None
        parts = self._sums.to(self._parameters[0].dtype).split([parameter.numel() for parameter in self._parameters])
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.grad = part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())

    def wait_s(self) -> float:
        """Seconds of the last sum over ranks that is known to have ended: on a GPU, of a step before."""
        return self._wait_s


def _now(device: torch.device) -> float | torch.cuda.Event:
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
    return perf_counter()
