"""What `dnctl status` says of a run's speed."""

import pytest

from orchestrator.cli.render_status import _input_bound
from orchestrator.run.progress import Progress


def progress(**seconds: float) -> Progress:
    return Progress(step=5, num_steps=10, epoch=0, num_epochs=1, steps_per_epoch=10, world_size=2, **seconds)


@pytest.mark.parametrize(
    ("data_s", "said"),
    [(0.0, ""), (0.2, ""), (0.5, ", input-bound: 33% of a step is waiting for images"), (9.0, ", input-bound: 90%")],
)
def test_a_run_that_waits_for_images_is_said_to_be_input_bound(data_s: float, said: str):
    text = _input_bound(progress(data_s=data_s, compute_s=0.9, communication_s=0.1))
    assert text.startswith(said)
    assert bool(text) == bool(said)


def test_nothing_is_said_before_the_first_step():
    assert _input_bound(progress()) == ""
