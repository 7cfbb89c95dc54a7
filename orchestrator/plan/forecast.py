"""How long a run will take where nodes come and go: many failure histories drawn, and the run carried through each.

Nodes fail independently, at exponentially distributed times, as nodes that can be taken away at any moment do. What is
simulated is what the engine does: train, be held up by checkpoints that are written behind the steps, lose what isn't
on storage yet (nothing, if the failure was announced in time), start again, wait for nodes or go on with fewer, grow
when they are back. All histories advance together, one event of each at a time; equal inputs give equal forecasts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.plan.interval import best_interval_s, daly_interval_s, young_interval_s

SEED = 1
NUM_HISTORIES = 2000
NUM_HISTORIES_OF_SEARCH = 500
INTERVALS_SEARCHED = 24
MAX_EVENTS = 5_000
"""Of one history; one that isn't over by then will hardly ever be."""
GIVE_UP_FACTOR = 4.0
"""An interval that takes so many times as long as the one at hand isn't followed any further."""
REACTION_S = 2.0
"""From a notice until the workers know of it, besides the step at hand."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a run takes of time, on all of its nodes."""

    work_s: float
    """Steps and evaluations to the last epoch, nothing else."""
    epoch_s: float
    """Between the checkpoints that are made whatever the clock says."""
    step_s: float
    hold_s: float
    """For which a checkpoint holds up the steps."""
    write_s: float
    """From then until it is on storage."""
    start_s: float
    """From the submission to the first step."""
    restart_s: float
    """From a failure to the first step after it, where nodes are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """The nodes that a run is on, and how they fail."""

    count: int
    mtbf_s: float
    """Mean time between failures of one node."""
    notice_s: float
    """How long before it goes a node says so; 0 if it doesn't."""
    replacement_s: float
    """From the loss of a node until there is another."""
    speeds: tuple[float, ...]
    """With 0, 1, … `count` nodes: speed relative to all of them; 0 where the run waits."""
    resize_s: float = 0.0
    """Least time from one change of the world size to the next."""

    @property
    def mtbf_of_all_s(self) -> float:
        """Mean time between two failures anywhere."""
        return self.mtbf_s / self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure over all histories. Infinite where a part of the histories doesn't come to an end."""

    mean: float
    p10: float
    p50: float
    p90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A time between checkpoints and what the run takes with it."""

    interval_s: float
    mean_wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is to be expected of a run."""

    costs: Costs
    nodes: Nodes
    interval_s: float
    """Between checkpoints by the clock, as the recipe says or, where it says auto, as the loop will take it."""
    wall_s: Spread
    node_s: Spread
    """Of all nodes together, paid for as long as they are there."""
    num_failures: float
    """Mean of a history, those included that hit a run which waits or starts."""
    goodput: float
    """Work over wall time, of the means."""
    best: Interval
    """Of those that were tried, with the bounds of the loop left aside."""
    young: Interval
    daly: Interval

    @property
    def undisturbed_s(self) -> float:
        """Wall time if nothing failed."""
        return _undisturbed_s(self.costs, self.interval_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """What became of each drawn history."""

    wall_s: Floats
    """inf where it didn't end."""
    node_s: Floats
    num_failures: NDArray[np.int64]


def forecast(costs: Costs, nodes: Nodes, *, interval_s: float | None, seed: int = SEED) -> Forecast:
    """Simulate a run; interval_s: between checkpoints by the clock, None for the one that `auto` takes."""
    mtbf_s = nodes.mtbf_of_all_s
    if interval_s is None:
        interval_s = best_interval_s(hold_s=costs.hold_s, write_s=costs.write_s, mean_time_between_failures_s=mtbf_s)
    histories = simulate(costs, nodes, interval_s=interval_s, num_histories=NUM_HISTORIES, seed=seed)
    wall_s = spread(histories.wall_s)

    def tried(seconds: float) -> Interval:
        if math.isinf(wall_s.p50):
            return Interval(interval_s=seconds, mean_wall_s=math.inf)
        found = simulate(
            costs,
            nodes,
            interval_s=seconds,
            num_histories=NUM_HISTORIES_OF_SEARCH,
            seed=seed,
            give_up_s=GIVE_UP_FACTOR * wall_s.p50,
        )
        return Interval(interval_s=seconds, mean_wall_s=float(found.wall_s.mean()))

    return Forecast(
        costs=costs,
        nodes=nodes,
        interval_s=interval_s,
        wall_s=wall_s,
        node_s=spread(histories.node_s),
        num_failures=float(histories.num_failures.mean()),
        goodput=costs.work_s / wall_s.mean,
        best=min((tried(seconds) for seconds in _candidates(costs, mtbf_s)), key=lambda found: found.mean_wall_s),
        young=tried(young_interval_s(hold_s=costs.hold_s, mtbf_s=mtbf_s)),
        daly=tried(daly_interval_s(hold_s=costs.hold_s, mtbf_s=mtbf_s)),
    )


def _candidates(costs: Costs, mtbf_s: float) -> Sequence[float]:
    """Intervals around Young's, each a third longer than the one before, none shorter than writing takes."""
    middle = young_interval_s(hold_s=max(costs.hold_s, 1e-4), mtbf_s=mtbf_s)
    around = middle * 1.33 ** np.arange(-INTERVALS_SEARCHED // 2, INTERVALS_SEARCHED // 2 + 1)
    return sorted({max(float(seconds), costs.write_s, costs.step_s) for seconds in around})


def spread(figures: Floats) -> Spread:
    """Mean and percentiles; infinite figures are larger than all others."""
    p10, p50, p90 = (float(np.quantile(figures, part, method="nearest")) for part in (0.1, 0.5, 0.9))
    return Spread(mean=float(figures.mean()), p10=p10, p50=p50, p90=p90)


def _undisturbed_s(costs: Costs, interval_s: float) -> float:
    period_s = _period_s(costs, interval_s)
    num_checkpoints = math.floor(costs.work_s / (period_s - costs.hold_s))
    return costs.start_s + costs.work_s + (num_checkpoints + 1) * costs.hold_s + costs.write_s


def _period_s(costs: Costs, interval_s: float) -> float:
    """From one checkpoint to the next, hold included: by the clock, which starts when one is written, or by epoch."""
    return min(interval_s + costs.write_s, costs.epoch_s) + costs.hold_s


def simulate(
    costs: Costs,
    nodes: Nodes,
    *,
    interval_s: float,
    num_histories: int = NUM_HISTORIES,
    seed: int = SEED,
    give_up_s: float = math.inf,
) -> Histories:
    """Carry the run through `num_histories` drawn histories of failures.

    give_up_s: leave it at that when all that go on are beyond this.
    """
    run = _Simulation(costs, nodes, interval_s, num_histories, np.random.default_rng(seed))
    for _ in range(MAX_EVENTS):
        if not run.advance() or run.now.min(where=~run.is_over, initial=math.inf) > give_up_s:
            break
    wall_s = np.where(run.is_over, run.now, np.inf)
    return Histories(wall_s=wall_s, node_s=np.where(run.is_over, run.node_s, np.inf), num_failures=run.num_failures)


class _Simulation:
    """All histories at their latest event; an array has an entry a history."""

    def __init__(
        self, costs: Costs, nodes: Nodes, interval_s: float, num_histories: int, random: np.random.Generator
    ) -> None:
        self._costs, self._nodes, self._random = costs, nodes, random
        self._period_s = _period_s(costs, interval_s)
        self._speeds = np.asarray(nodes.speeds)
        self.now = np.zeros(num_histories)
        self.node_s = np.zeros(num_histories)
        self.num_failures = np.zeros(num_histories, dtype=np.int64)
        self.is_over = np.zeros(num_histories, dtype=np.bool_)
        self._saved_s = np.zeros(num_histories)
        """Work that is on storage, in seconds with all nodes."""
        self._start_s = np.full(num_histories, costs.start_s)
        """Until the first step of the attempt at hand."""
        self._num_up = np.full(num_histories, nodes.count)
        self._back_at = np.full((num_histories, nodes.count), np.inf)
        """When lost nodes will have been replaced."""
        self._needs_s = REACTION_S + costs.step_s + costs.hold_s + costs.write_s
        self._is_announced = nodes.notice_s >= self._needs_s

    def advance(self) -> bool:
        """Take every history that isn't over to its next event; False if all are."""
        going = np.flatnonzero(~self.is_over)
        if going.size == 0:
            return False
        self._take_back_nodes(going)
        speed = self._speeds[self._num_up[going]]
        waiting, running = going[speed == 0], going[speed > 0]
        self._wait_for_nodes(waiting)
        self._run_until_next_event(running, speed[speed > 0])
        return True

    def _wait_for_nodes(self, which: NDArray[np.int64]) -> None:
        """Until the next one is back, or one of those that are there fails meanwhile."""
        back_in_s = self._next_back_at(which) - self.now[which]
        num_up = self._num_up[which]
        mtbf_s = np.where(num_up > 0, self._nodes.mtbf_s / np.maximum(num_up, 1), np.inf)
        fails_in_s = self._random.exponential(mtbf_s)
        self._pass_time(which, np.minimum(back_in_s, fails_in_s))
        self._lose_a_node(which[fails_in_s < back_in_s])

    def _next_back_at(self, which: NDArray[np.int64]) -> Floats:
        next_back_at: Floats = self._back_at[which].min(axis=1)
        return next_back_at

    def _take_back_nodes(self, which: NDArray[np.int64]) -> None:
        is_back = self._back_at[which] <= self.now[which, None]
        self._num_up[which] += is_back.sum(axis=1)
        self._back_at[which] = np.where(is_back, np.inf, self._back_at[which])

    def _pass_time(self, which: NDArray[np.int64], seconds: Floats) -> None:
        self.now[which] += seconds
        self.node_s[which] += seconds * self._num_up[which]

    def _run_until_next_event(self, which: NDArray[np.int64], speed: Floats) -> None:
        """An attempt: it starts, trains and ends, by a failure, because it can grow, or because the work is done."""
        costs, period_s = self._costs, self._period_s
        num_up, start_s = self._num_up[which], self._start_s[which]
        fails_in_s = self._random.exponential(self._nodes.mtbf_s / num_up)
        grows_in_s = np.maximum(self._next_back_at(which) - self.now[which], self._nodes.resize_s + start_s)
        can_grow = self._speeds[np.minimum(num_up + 1, self._nodes.count)] > speed
        grows_in_s = np.where(can_grow, grows_in_s, np.inf)
        left_s = (costs.work_s - self._saved_s[which]) / speed
        num_saves = np.floor(left_s / (period_s - costs.hold_s))
        ends_in_s = start_s + left_s + (num_saves + 1) * costs.hold_s + costs.write_s
        lasts_s = np.minimum(np.minimum(fails_in_s, grows_in_s), ends_in_s)
        is_end, is_failure = lasts_s == ends_in_s, lasts_s == fails_in_s
        trained_s = np.maximum(lasts_s - start_s, 0.0)
        is_orderly = ~is_failure | self._is_announced
        self._saved_s[which] += speed * np.where(is_orderly, self._done_s(trained_s), self._on_storage_s(trained_s))
        was_training = lasts_s > start_s
        pause_s = np.where(is_orderly & ~is_end & was_training, self._needs_s, 0.0)
        self._pass_time(which, lasts_s + pause_s)
        self._lose_a_node(which[is_failure])
        self._start_s[which] = costs.restart_s
        self.is_over[which[is_end]] = True

    def _done_s(self, trained_s: Floats) -> Floats:
        """Work done in so long since the first step: what isn't being held up by checkpoints."""
        num_periods = np.floor(trained_s / self._period_s)
        within_s = np.minimum(trained_s - num_periods * self._period_s, self._period_s - self._costs.hold_s)
        return num_periods * (self._period_s - self._costs.hold_s) + within_s

    def _on_storage_s(self, trained_s: Floats) -> Floats:
        """Work that checkpoints have put on storage in so long."""
        num_written = np.maximum(np.floor((trained_s - self._costs.write_s) / self._period_s), 0.0)
        return num_written * (self._period_s - self._costs.hold_s)

    def _lose_a_node(self, which: NDArray[np.int64]) -> None:
        self.num_failures[which] += 1
        self._num_up[which] -= 1
        place = np.argmax(np.isinf(self._back_at[which]), axis=1)
        self._back_at[which, place] = self.now[which] + self._nodes.replacement_s
