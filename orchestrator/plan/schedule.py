"""The learning rate as a function of the optimiser step alone."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRateSegment:
    """A stretch of steps on which the learning rate is constant, or rises linearly."""

    first_step: int
    """0-based."""
    last_step: int
    """Inclusive."""
    first_lr: float
    last_lr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRateSchedule:
    """A step schedule: `base_lr`, multiplied by `gamma` at each milestone, after an optional linear warm-up.

    milestones_steps: ascending; the first step (0-based) of each lower rate.
    warmup_steps: the rate rises linearly over these steps and reaches its full value at the last of them.
    """

    base_lr: float
    milestones_steps: tuple[int, ...]
    gamma: float
    warmup_steps: int = 0

    def at(self, step: int) -> float:
        """The learning rate of optimiser step `step`, counted from 0 since the run began."""
        decayed = self.base_lr * self.gamma ** bisect_right(self.milestones_steps, step)
        return decayed * (step + 1) / self.warmup_steps if step < self.warmup_steps else decayed

    def segments(self, num_steps: int) -> tuple[LearningRateSegment, ...]:
        """The schedule of a run of `num_steps` steps, for reading."""
        edges = sorted({0, num_steps, *(e for e in (self.warmup_steps, *self.milestones_steps) if 0 < e < num_steps)})
        return tuple(
            LearningRateSegment(
                first_step=start, last_step=stop - 1, first_lr=self.at(start), last_lr=self.at(stop - 1)
            )
            for start, stop in pairwise(edges)
        )
