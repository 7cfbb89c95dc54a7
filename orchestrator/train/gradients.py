"""Gradients summed over ranks by DDP, in an order that is the same from the first step on.

The loss of a step is divided by the step's images, so ranks add their gradients: no average over ranks, whatever the
number of images on each. DDP would rearrange its buckets after its first backward pass, so that a resumed run added in
another order than an undisturbed one; `find_unused_parameters` keeps the arrangement as it is, for the cost of a walk
over the graph (docs/adr/0002-fixed-buckets.md).
"""

from contextlib import AbstractContextManager, nullcontext
from time import perf_counter

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from orchestrator.train.world import World


class SummedGradients:
    """A model whose backward passes end with gradients summed over all ranks."""

    def __init__(self, model: nn.Module, world: World) -> None:
        self._device = world.device
        self._launched_at: float | torch.cuda.Event | None = None
        self._ddp: DistributedDataParallel | None = None
        self.module = model
        if world.size > 1:
            self._ddp = DistributedDataParallel(
                model,
                device_ids=[world.device] if world.device.type == "cuda" else None,
                forward_sync_buffers=False,
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
            )
            self._ddp.register_comm_hook(self, _sum_over_ranks)
            self.module = self._ddp

    def accumulating(self) -> AbstractContextManager[None]:
        """Backward passes inside add to this rank's gradients alone; the one after them sums over ranks."""
        return self._ddp.no_sync() if self._ddp is not None else nullcontext()

    def last_bucket_launched(self) -> None:
        """Note that backward has nothing left to compute; what follows is waiting for other ranks."""
        self._launched_at = _now(self._device)

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


def _now(device: torch.device) -> float | torch.cuda.Event:
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
    return perf_counter()


def _sum_over_ranks(gradients: SummedGradients, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    if bucket.is_last():
        gradients.last_bucket_launched()
    return future.then(lambda done: done.value()[0])
