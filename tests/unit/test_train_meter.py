"""Where the time of a window went, and that what isn't a step doesn't count."""

import pytest

from orchestrator.train import meter
from orchestrator.train.meter import Meter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(meter, "perf_counter", lambda: now[0])
    return now


def test_a_window_is_divided_into_data_communication_and_the_rest(clock: list[float]) -> None:
    timer = Meter()
    for loss in (2.0, 4.0):
        clock[0] += 1.0
        timer.add_step(num_images=16, data_s=0.25, communication_s=0.125)
        timer.add_loss(loss)
    figures = timer.figures(close_window=True)
    assert (figures.loss, figures.images_per_s, figures.step_s) == (3.0, 16.0, 1.0)
    assert (figures.data_s, figures.communication_s, figures.compute_s) == (0.25, 0.125, 0.625)


def test_evaluation_and_saving_do_not_count(clock: list[float]) -> None:
    timer = Meter()
    clock[0] += 1.0
    timer.add_step(num_images=8, data_s=0.0, communication_s=0.0)
    with timer.paused("evaluation"):
        clock[0] += 50.0
    assert timer.figures(close_window=True).step_s == 1.0


def test_an_open_window_shows_the_figures_of_the_one_before(clock: list[float]) -> None:
    timer = Meter()
    assert timer.figures(close_window=False).loss is None
    clock[0] += 1.0
    timer.add_step(num_images=8, data_s=0.0, communication_s=0.0)
    timer.add_loss(1.0)
    closed = timer.figures(close_window=True)
    assert timer.figures(close_window=False) == closed
