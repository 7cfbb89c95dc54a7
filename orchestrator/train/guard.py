"""The divergence guard: whether a step may change the weights, judged from its loss and its gradient's norm.

A step is refused if either isn't finite, or lies far above the recent ones: more than `spike` robust deviations above
their median (1.4826 times the median absolute deviation, which is a normal distribution's standard deviation; at least
2 % of the median, so that a flat stretch doesn't make every ripple a spike). A network that has all but learnt its
images meets one that it hasn't with a loss and a gradient a hundred times the median, and nothing is wrong. So a loss
is no spike below twice that of guessing, and a gradient's norm is none while the loss is below that of guessing.

A step is judged where the numbers are, from what all ranks have in common, so every rank comes to the same verdict and
no step waits for it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

WINDOW = 128
"""Steps that are looked back upon."""
FEWEST = 32
"""Steps before anything counts as a spike."""
LEAST_DEVIATION = 0.02
"""As a part of the median."""
MAD_TO_DEVIATION = 1.4826


class Guard:
    """What recent steps looked like, on the device: two rows of WINDOW values, losses and norms."""

    def __init__(self, *, spike: float | None, guessing_loss: float, loss_scaling: bool, device: torch.device) -> None:
        """spike: deviations above the median that are too many; None: only what isn't finite is refused.

        guessing_loss: of a network that gives every class the same probability.
        loss_scaling: whether a gradient that isn't finite is an overflow of float16, which loss scaling deals with.
        """
        self._spike = spike
        self._harmless = torch.tensor([2 * guessing_loss, guessing_loss], dtype=torch.float64, device=device)
        """Up to which loss neither the loss nor the gradient's norm is a spike."""
        self._may_overflow = torch.tensor([False, loss_scaling], device=device)
        self._values = torch.full((2, WINDOW), torch.inf, dtype=torch.float64, device=device)
        self._num_seen = torch.zeros((), dtype=torch.int64, device=device)

    def admit(self, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """Whether the step may be applied: a bool scalar on the device. An admitted step joins the recent ones.

        loss: mean of the step over its images. grad_norm: of the summed gradient.
        """
        found = torch.stack([loss, grad_norm]).to(torch.float64)
        finite = torch.isfinite(found)
        bearable = finite | self._may_overflow
        if self._spike is not None:
            harmless = found[0] <= self._harmless
            bearable &= (found <= self._bounds()) | harmless | ~finite | (self._num_seen < FEWEST)
        counted = (bearable & finite).all()
        at = (self._num_seen % WINDOW)[None]
        column = torch.where(counted, found[:, None], self._values.index_select(1, at))
        self._values.index_copy_(1, at, column)
        self._num_seen += counted
        return bearable.all()

    def _bounds(self) -> Tensor:
        """The highest loss and norm that are no spikes: float64[2]."""
        assert self._spike is not None
        middle = ((self._num_seen.clamp(max=WINDOW) - 1).clamp(min=0) // 2)[None]
        median = self._values.sort(dim=1).values.index_select(1, middle)
        # Places that hold nothing yet are infinitely far away, so they sort behind all that hold something.
        spread = (self._values - median).abs().sort(dim=1).values.index_select(1, middle)
        deviation = torch.maximum(MAD_TO_DEVIATION * spread, LEAST_DEVIATION * median.abs())
        return (median + self._spike * deviation)[:, 0]

    def latest(self, count: int) -> list[tuple[float, float]]:
        """(loss, gradient norm) of the steps admitted last, oldest first; fewer than count at the start."""
        num_seen = int(self._num_seen)
        places = [number % WINDOW for number in range(max(0, num_seen - min(count, WINDOW)), num_seen)]
        losses, norms = self._values[:, places].tolist()
        return list(zip(losses, norms, strict=True))

    def state(self) -> dict[str, list[float]]:
        """What a checkpoint must hold of it."""
        num_seen = int(self._num_seen)
        losses, norms = self._values[:, : min(num_seen, WINDOW)].tolist()
        return {"num_seen": [num_seen], "losses": losses, "norms": norms}

    def load(self, state: dict[str, Sequence[float]]) -> None:
        """Go on from a checkpoint's."""
        (num_seen,) = state["num_seen"]
        self._num_seen.fill_(int(num_seen))
        self._values.fill_(torch.inf)
        for row, name in enumerate(("losses", "norms")):
            values = torch.tensor(state[name], dtype=torch.float64)
            self._values[row, : len(values)] = values
