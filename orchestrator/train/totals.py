"""The totals of steps on their way from the device to the host, without a step ever waiting for them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.train.reporter import Request
from orchestrator.train.step import StepResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What all ranks together counted in one step."""

    step: int
    loss_sum: float
    num_correct: int
    num_images: int
    request: Request
    """What the first rank asked of all."""
    applied: bool
    """Whether the guard let the step change the weights."""
    grad_norm: float
    figures: list[float]
    """What ranks told of themselves (telemetry.py)."""
    samples_checksum: int
    """Of which image was where in the step: the same at any world size, another if the order was another."""


class TotalsQueue:
    """Hands out totals in order; on a GPU one step late, when they have long arrived."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self.lag = 1 if self._on_gpu else 0
        """Steps between a step and its totals."""
        self._pending: deque[tuple[int, StepResult, Tensor, torch.cuda.Event | None]] = deque()

    def push(self, step: int, result: StepResult) -> Iterator[Totals]:
        """Take a step's result and hand out what is `lag` steps old."""
        totals = torch.cat([result.totals, result.figures])
        if self._on_gpu:
            on_host = torch.empty_like(totals, device="cpu", pin_memory=True)
            on_host.copy_(totals, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            self._pending.append((step, result, on_host, arrived))
        else:
            self._pending.append((step, result, totals, None))
        while len(self._pending) > self.lag:
            yield self._pop()

    def underway(self) -> list[Totals]:
        """Wait for all that is on its way and look at it; it is handed out later all the same."""
        return [_read(*pending) for pending in self._pending]

    def drain(self) -> Iterator[Totals]:
        """Wait for all that is on its way."""
        while self._pending:
            yield self._pop()

    def _pop(self) -> Totals:
        return _read(*self._pending.popleft())


def _read(step: int, result: StepResult, on_host: Tensor, arrived: torch.cuda.Event | None) -> Totals:
    if arrived is not None:
        arrived.synchronize()
    loss_sum, num_correct, request, samples_checksum, applied, grad_norm, *figures = on_host.tolist()
    return Totals(
        step=step,
        loss_sum=loss_sum,
        num_correct=round(num_correct),
        num_images=result.num_images,
        request=Request(int(request)),
        applied=bool(applied),
        grad_norm=grad_norm,
        figures=figures,
        samples_checksum=int(samples_checksum),
    )
