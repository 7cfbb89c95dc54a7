"""The same run on any number of workers: same images, same groups, losses that agree to rounding."""

from pathlib import Path

import pytest

from tests.training import Trained, make_run, train_ranks

pytestmark = pytest.mark.slow


def _train(tmp_path: Path, images: Path, workers: int, *overrides: str) -> Trained:
    run = make_run(tmp_path / f"workers{workers}", images, workers=workers, overrides=overrides)
    return train_ranks(run, workers=workers)


@pytest.mark.parametrize("groups", [2, 4])
def test_losses_agree_over_20_steps_on_1_2_3_workers(tmp_path: Path, small_images: Path, groups: int) -> None:
    """Includes short batches; with 2 groups on 3 workers one group is split over two ranks."""
    settings = (f"train.batch_norm_groups={groups}", "train.epochs=7", "model.drop_rate=0.2")
    alone = _train(tmp_path, small_images, 1, *settings).losses()
    assert len(alone) == 21
    for workers in (2, 3):
        together = _train(tmp_path, small_images, workers, *settings).losses()
        assert together == pytest.approx(alone, rel=1e-4)
