"""How long to train from one checkpoint to the next: the arithmetic of it, for the loop and for forecasts."""

import math

SHORTEST_INTERVAL_S = 30.0
LONGEST_INTERVAL_S = 1800.0
LARGEST_WRITING_SHARE = 0.1
"""Of the time between two checkpoints by the clock: what writing one may take."""


def young_interval_s(*, hold_s: float, mtbf_s: float) -> float:
    """Young's interval, sqrt(2 * cost * MTBF): J. W. Young, "A first order approximation to the optimum checkpoint
    interval", 1974."""
    return math.sqrt(2 * hold_s * mtbf_s)


def daly_interval_s(*, hold_s: float, mtbf_s: float) -> float:
    """Daly's refinement: J. T. Daly, "A higher order estimate of the optimum checkpoint interval", 2006."""
    if hold_s >= 2 * mtbf_s:
        return mtbf_s
    ratio = math.sqrt(hold_s / (2 * mtbf_s))
    return math.sqrt(2 * hold_s * mtbf_s) * (1 + ratio / 3 + ratio**2 / 9) - hold_s


def daly_wall_s(*, work_s: float, interval_s: float, hold_s: float, restart_s: float, mtbf_s: float) -> float:
    """Expected wall time under exponential failures, which spare neither checkpoints nor restarts: Daly's closed form.

    Every `interval_s` of work a checkpoint stops it for `hold_s`.
    """
    segments = work_s / interval_s
    return mtbf_s * math.exp(restart_s / mtbf_s) * math.expm1((interval_s + hold_s) / mtbf_s) * segments


def best_interval_s(*, hold_s: float, write_s: float, mean_time_between_failures_s: float) -> float:
    """Seconds from one checkpoint to the next that lose the least time: Young's, within bounds.

    hold_s: what a checkpoint costs the steps. write_s: how long its writing goes on behind them, which bounds the
    interval from below. Daly's refinement differs by a part in a thousand at costs this small.
    """
    young = young_interval_s(hold_s=hold_s, mtbf_s=mean_time_between_failures_s)
    return min(max(young, write_s / LARGEST_WRITING_SHARE, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S)
