"""Work on a GPU that is recorded once, as a CUDA graph, and replayed: one launch in place of thousands.

What is recorded reads and writes the same memory at every replay, decides nothing on the host and waits for nothing.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from time import perf_counter
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor

from orchestrator.data.batch import Batch
from orchestrator.data.color import ColorMaps

_log = logging.getLogger(__name__)

Work = Callable[[], None]
Capture = Callable[[Work], Work]
"""Records work, without doing it, and returns what replays it. Raises RuntimeError where that can't be done."""

WARM_UP: Final = 2
"""Runs before the recording, in which libraries choose algorithms, kernels are compiled and constants are made."""


class CaptureOnGpu:
    """Records on a GPU; all recordings share their temporary memory, so they must not run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, work: Work) -> Work:
        """Record `work`."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads load and save meanwhile: what they do must not count as this one's.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
        ):
            work()
        return graph.replay


class Recorded:
    """Work that is done as it is a few times, then recorded, then replayed; or done as it is for ever, if it can't be.

    What `work` does on the host is done while it runs and while it is recorded, not in replays.
    """

    def __init__(self, name: str, work: Work, capture: Capture, *, device: torch.device) -> None:
        self._name, self._work, self._capture, self._device = name, work, capture, device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._num_runs = 0
        self._replay: Work | None = None
        self.failure: str | None = None
        """Why it couldn't be recorded; None if it could, or if nobody has tried yet."""

    @property
    def is_recorded(self) -> bool:
        """Whether the next call replays."""
        return self._replay is not None

    def __call__(self) -> None:
        """Do the work."""
        if self._replay is None and self.failure is None and self._num_runs >= WARM_UP:
            self._record()
        if self._replay is not None:
            self._replay()
            return
        self._num_runs += 1
        if self.failure is None:
            self._aside()
        else:
            self._work()

    def _record(self) -> None:
        began_at = perf_counter()
        try:
            self._replay = self._capture(self._work)
        except RuntimeError as error:
            self.failure = str(error).strip().splitlines()[0]
            _log.warning(
                "%s can't be recorded as a CUDA graph and runs without one: %s; train.cuda_graphs: off avoids the try",
                self._name,
                self.failure,
            )
        else:
            _log.info("%s recorded as a CUDA graph in %.1f s", self._name, perf_counter() - began_at)

    def _aside(self) -> None:
        """Not on the stream that everything else is on: memory and libraries' handles are a stream's own."""
        if self._side is None:
            self._work()
            return
        current = torch.cuda.current_stream(self._device)
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            self._work()
        current.wait_stream(self._side)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInputs:
    """What a step needs of one micro-batch, all of it on the device."""

    images: Tensor
    """uint8[n, h, w, 3]."""
    labels: Tensor
    """int64[n]."""
    indices: Tensor
    """int64[n]."""
    epoch: Tensor
    """int64 scalar."""
    color: ColorMaps | None

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Self:
        """A loader's batch."""
        return cls(
            images=batch.images,
            labels=batch.labels,
            indices=on_device(batch.indices, torch.int64, device),
            epoch=on_device(np.asarray(batch.epoch), torch.int64, device),
            color=batch.color,
        )

    @classmethod
    def joined(cls, groups: Sequence[Self]) -> Self:
        """Several groups of one epoch as one batch, in their order."""
        colors = [group.color for group in groups if group.color is not None]
        return cls(
            images=torch.cat([group.images for group in groups]),
            labels=torch.cat([group.labels for group in groups]),
            indices=torch.cat([group.indices for group in groups]),
            epoch=groups[0].epoch,
            color=ColorMaps.joined(colors) if colors else None,
        )

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        colors = [] if self.color is None else [getattr(self.color, field.name) for field in fields(self.color)]
        return [self.images, self.labels, self.indices, self.epoch, *colors]

    def kept(self) -> Self:
        """A copy in memory of its own."""
        color = self.color
        if color is not None:
            color = ColorMaps(**{field.name: getattr(color, field.name).clone() for field in fields(color)})
        images, labels, indices, epoch = (tensor.clone() for tensor in self.tensors()[:4])
        return replace(self, images=images, labels=labels, indices=indices, epoch=epoch, color=color)


class StaticInputs:
    """The inputs of recorded work, always in the same memory."""

    def __init__(self, like: Sequence[GroupInputs]) -> None:
        self.groups = [inputs.kept() for inputs in like]
        self._tensors = [tensor for inputs in self.groups for tensor in inputs.tensors()]

    def fill(self, inputs: Sequence[GroupInputs]) -> None:
        """Take over what comes next."""
        tensors = [tensor for group in inputs for tensor in group.tensors()]
        for kept, given in zip(self._tensors, tensors, strict=True):
            assert kept.shape == given.shape
            kept.copy_(given)


def on_device(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of the host on a device, without waiting for it."""
    on_host = torch.as_tensor(values, dtype=dtype)
    return on_host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else on_host
