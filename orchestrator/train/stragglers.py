"""Who holds the others up: workers that take longer than the rest over the same phase, step after step.

Ranks step together, so a slow one shows as waiting for others ("communication") on all the rest, and its own time tells
in which phase it is slow: waiting for its images, or computing. A worker is slow if the median of its last WINDOW
steps, and of each half of them, is above that of the others by all of: MIN_FACTOR times, MIN_SHARE of a step,
MIN_DEVIATIONS of the others' spread (median absolute deviation), and MIN_NOISES of what each of them varies by from
step to step. It is no longer slow when it is back below half of that. Computing is compared by image.

Two or three workers tell too little of what is usual: they often share a machine's cores, and one of them does the
run's book-keeping besides. There the factor is MIN_FACTOR_OF_FEW.

A slow network isn't any single worker's: in a sum over all, everybody waits for it alike. What the last to arrive
spends communicating, the least of all ranks, is the network's time alone. It is slow when that is well above what it
was at best in this attempt.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.run.workers import Phase, Straggler

WINDOW = 20
"""Steps. A worker that becomes slow is named after some more than half of them."""
CHECK_INTERVAL = 5
NUM_WARM_UP = 5
"""First steps of an attempt that aren't looked at: memory and kernels are being found."""
MIN_FACTOR = 1.25
FEW, MIN_FACTOR_OF_FEW = 3, 1.6
MIN_SHARE = 0.1
MIN_DEVIATIONS = 5.0
MIN_NOISES = 3.0
SIGMA_PER_MAD = 1.4826
"""Standard deviation over median absolute deviation, of a normal distribution."""
SLOW_DATA_SHARE, FAST_DATA_SHARE = 0.25, 0.15
"""Data is slow when all workers wait for images for more than the first part of a step, till less than the second."""

SLOW_NETWORK_FACTOR = 2.0
"""Over its best, from which on the network is slow if that is also MIN_SHARE of a step, till it is back by half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Seconds of one step, an entry a rank."""

    data_s: np.ndarray
    compute_s: np.ndarray
    communication_s: np.ndarray


class StragglerWatch:
    """Takes the times of all ranks step by step, and tells who becomes slow and who no longer is."""

    def __init__(self, hosts: Sequence[str], *, images_per_rank: Sequence[int]) -> None:
        """images_per_rank: of a full step. Ranks without images are neither slow nor compared with."""
        self._hosts = hosts
        self._images = np.asarray(images_per_rank, dtype=np.float64)
        self._window: deque[StepTimes] = deque(maxlen=WINDOW)
        self._num_steps = 0
        self._current: dict[tuple[int, Phase], Straggler] = {}
        self.data_is_slow = False
        self.network_is_slow = False
        self._fastest_network_s = np.inf

    @property
    def stragglers(self) -> tuple[Straggler, ...]:
        """Who is slow now, the worst first."""
        return tuple(sorted(self._current.values(), key=lambda straggler: -straggler.factor))

    def medians(self) -> StepTimes:
        """The medians over the window, by rank. There must have been a step."""
        data_s, compute_s, communication_s = (
            np.median([getattr(times, name) for times in self._window], axis=0)
            for name in ("data_s", "compute_s", "communication_s")
        )
        return StepTimes(data_s=data_s, compute_s=compute_s, communication_s=communication_s)

    def add(self, step: int, times: StepTimes) -> list[tuple[str, Straggler | None]]:
        """Count a step; returns what changed, as events: their names, and who it is about."""
        self._num_steps += 1
        if self._num_steps <= NUM_WARM_UP:
            self._window.clear()
        self._window.append(times)
        if len(self._window) < WINDOW // 2 or self._num_steps % CHECK_INTERVAL:
            return []
        medians = self.medians()
        step_s = float(np.median(medians.data_s + medians.compute_s + medians.communication_s))
        working = np.flatnonzero(self._images)
        scale = np.where(self._images > 0, self._images / max(self._images.max(), 1.0), 1.0)
        data_s = np.stack([each.data_s for each in self._window])
        compute_s = np.stack([each.compute_s for each in self._window]) / scale
        return [
            *self._compare("data", data_s, working, step, step_s),
            *self._compare("compute", compute_s, working, step, step_s),
            *self._judge_data(float(np.median(medians.data_s[working])) / max(step_s, 1e-9)),
            *self._judge_network(float(np.median([each.communication_s.min() for each in self._window])), step_s),
        ]

    def _compare(
        self, phase: Phase, window_s: np.ndarray, working: np.ndarray, step: int, step_s: float
    ) -> Iterator[tuple[str, Straggler | None]]:
        """window_s: of each step of the window (first axis) and each rank."""
        seconds = np.median(window_s, axis=0)
        typical_s = float(np.median(seconds[working])) if len(working) > 1 else np.inf
        # Most ranks needn't be compared with all others; of two, each is half as far off.
        is_far_off = seconds[working] - typical_s > MIN_SHARE * step_s / 2
        suspects = {*working[is_far_off].tolist(), *(rank for rank, slow_in in self._current if slow_in == phase)}
        if not suspects:
            return
        noise_s = SIGMA_PER_MAD * np.median(np.abs(window_s - seconds), axis=0)
        half = len(window_s) // 2
        halves_s = np.minimum(np.median(window_s[:half], axis=0), np.median(window_s[half:], axis=0))
        min_factor = MIN_FACTOR if len(working) > FEW else MIN_FACTOR_OF_FEW
        for rank in sorted(suspects):
            before = self._current.get((rank, phase))
            others = seconds[working[working != rank]]
            others_s = float(np.median(others))
            spread_s = SIGMA_PER_MAD * float(np.median(np.abs(others - others_s)))
            bound_s = max(
                (min_factor - 1) * others_s,
                MIN_SHARE * step_s,
                MIN_DEVIATIONS * spread_s,
                MIN_NOISES * float(np.median(noise_s[working[working != rank]])),
            )
            excess_s = float(seconds[rank]) - others_s
            if before is None and min(excess_s, float(halves_s[rank]) - others_s) <= bound_s:
                continue
            if before is not None and excess_s < bound_s / 2:
                del self._current[rank, phase]
                yield "straggler_ended", before
                continue
            now = Straggler(
                rank=rank,
                host=self._hosts[rank],
                phase=phase,
                factor=float(seconds[rank]) / max(others_s, 1e-4),
                seconds=float(seconds[rank]),
                others_s=others_s,
                since_step=before.since_step if before is not None else step,
            )
            self._current[rank, phase] = now
            if before is None:
                yield "straggler", now

    def _judge_data(self, share: float) -> Iterator[tuple[str, None]]:
        if not self.data_is_slow and share > SLOW_DATA_SHARE:
            self.data_is_slow = True
            yield "data_slow", None
        elif self.data_is_slow and share < FAST_DATA_SHARE:
            self.data_is_slow = False
            yield "data_slow_ended", None

    def _judge_network(self, network_s: float, step_s: float) -> Iterator[tuple[str, None]]:
        self._fastest_network_s = min(self._fastest_network_s, network_s)
        excess_s = network_s - self._fastest_network_s
        bound_s = max((SLOW_NETWORK_FACTOR - 1) * self._fastest_network_s, MIN_SHARE * step_s)
        if not self.network_is_slow and excess_s > bound_s:
            self.network_is_slow = True
            yield "network_slow", None
        elif self.network_is_slow and excess_s < bound_s / 2:
            self.network_is_slow = False
            yield "network_slow_ended", None
