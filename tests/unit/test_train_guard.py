"""The guard refuses what isn't finite or is far above the recent steps, and nothing else."""

import math

import pytest
import torch

from orchestrator.train.guard import FEWEST, WINDOW, Guard


def guard(*, spike: float | None = 10.0, loss_scaling: bool = False) -> Guard:
    return Guard(spike=spike, guessing_loss=1.0, loss_scaling=loss_scaling, device=torch.device("cpu"))


def admits(watching: Guard, loss: float, norm: float = 1.0) -> bool:
    return bool(watching.admit(torch.tensor(loss, dtype=torch.float64), torch.tensor(norm)))


def after(num_steps: int, **options: float | None) -> Guard:
    """A guard that has seen losses between 2.0 and 2.2."""
    watching = guard(**options)  # type: ignore[arg-type]
    assert all(admits(watching, 2.0 + 0.1 * (step % 3)) for step in range(num_steps))
    return watching


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_from_the_first_step_on(value: float):
    assert not admits(guard(spike=None), value)
    assert not admits(guard(spike=None), 1.0, norm=value)
    assert not admits(guard(), value)


def test_a_spike_of_the_loss_or_of_the_gradient_is_refused():
    assert not admits(after(WINDOW), 4.0)
    assert not admits(after(WINDOW), 2.1, norm=3.0)
    assert admits(after(WINDOW), 2.4)
    assert admits(after(WINDOW), 0.1), "a loss that falls is no spike"


def test_a_network_that_has_learnt_its_images_may_meet_a_hard_one():
    watching = guard()
    for step in range(WINDOW):
        assert admits(watching, 0.001 * (1 + step % 3), norm=0.01)
    assert admits(watching, 1.9, norm=0.01), "below twice the loss of guessing"
    assert admits(watching, 0.9, norm=50.0), "below the loss of guessing"
    assert not admits(watching, 2.1, norm=0.01)
    assert not admits(watching, 1.1, norm=50.0)


def test_without_a_bound_only_what_is_not_finite_is_refused():
    assert admits(after(WINDOW, spike=None), 1e30)


def test_nothing_is_a_spike_before_enough_steps_were_seen():
    assert admits(after(FEWEST - 1), 100.0)
    assert not admits(after(FEWEST), 100.0)


def test_a_spike_does_not_raise_the_bound():
    watching = after(WINDOW)
    for _ in range(3 * WINDOW):
        assert not admits(watching, 4.0)


def test_an_overflow_that_loss_scaling_deals_with_is_no_divergence():
    assert admits(guard(loss_scaling=True), 2.0, norm=math.inf)
    assert not admits(guard(loss_scaling=True), math.nan)


@pytest.mark.parametrize("num_steps", [0, 5, FEWEST + 1, WINDOW, WINDOW + 17])
def test_a_guard_that_goes_on_from_a_checkpoint_judges_as_the_undisturbed_one(num_steps: int):
    undisturbed = after(num_steps)
    resumed = guard()
    resumed.load(undisturbed.state())
    for step in range(2 * WINDOW):
        loss = 2.0 + 0.05 * math.sin(step) + (2.0 if step % 40 == 39 else 0.0)
        assert admits(undisturbed, loss) == admits(resumed, loss)
    assert undisturbed.state() == resumed.state()


@pytest.mark.parametrize("num_steps", [0, 3, 130])
def test_what_the_latest_steps_were_is_told_in_order(num_steps: int):
    watching = guard(spike=None)
    for step in range(num_steps):
        admits(watching, float(step), 10.0 + step)
    expected = [(float(step), 10.0 + step) for step in range(max(0, num_steps - 5), num_steps)]
    assert watching.latest(5) == expected
