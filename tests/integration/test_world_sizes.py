"""The same run on any number of workers: same images, same groups, and the same bits where groups stay whole."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from orchestrator.engine.planning import load_plan
from orchestrator.train.requests import training_requests
from tests.training import Trained, make_run, train_ranks

pytestmark = pytest.mark.slow


def _train(tmp_path: Path, images: Path, workers: int, *overrides: str) -> Trained:
    run = make_run(tmp_path / f"workers{workers}", images, workers=workers, overrides=overrides)
    return train_ranks(run, workers=workers)


@pytest.mark.parametrize(("groups", "block"), [(2, "fused"), (4, "reference")])
def test_20_steps_come_to_the_same_bits_on_1_2_and_3_workers(
    tmp_path: Path, small_images: Path, groups: int, block: str
) -> None:
    """Short batches and dropout included; with 2 groups the third worker has nothing to compute."""
    settings = (f"train.batch_norm_groups={groups}", "train.epochs=7", "model.drop_rate=0.2", f"model.block={block}")
    alone = _train(tmp_path, small_images, 1, *settings)
    assert len(alone.losses()) == 21
    for workers in (2, 3):
        together = _train(tmp_path, small_images, workers, *settings)
        assert together.losses() == alone.losses()
        assert together.tensors_sha256() == alone.tensors_sha256()


def test_a_batch_with_fewer_images_than_groups_is_trained_on(tmp_path: Path, small_images: Path) -> None:
    """46 images in batches of 15 leave one; of four groups three are empty then, and so is a rank."""
    settings = ("train.batch_norm_groups=4", "train.global_batch_size=15", "train.epochs=2")
    alone = _train(tmp_path, small_images, 1, *settings)
    together = _train(tmp_path, small_images, 3, *settings)
    assert together.losses() == alone.losses()
    assert together.tensors_sha256() == alone.tensors_sha256()


@pytest.mark.parametrize("block", ["reference", pytest.param("fused", marks=pytest.mark.long)])
def test_a_group_split_over_ranks_follows_the_same_losses(
    tmp_path: Path, small_images: Path, block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64: a wrong statistic or gradient would show; in float32 this tiny problem amplifies rounding a lot."""
    monkeypatch.setenv("TEST_FLOAT64", "1")
    settings = ("train.batch_norm_groups=2", "train.epochs=7", "model.drop_rate=0.2", "cluster.split_groups=true")
    settings = (*settings, f"model.block={block}")
    alone = _train(tmp_path, small_images, 1, *settings).losses()
    split = _train(tmp_path, small_images, 3, *settings).losses()
    assert len(split) == 21
    assert split == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize(("workers", "split"), [(1, False), (2, False), (3, False), (3, True), (5, True)])
def test_every_image_is_used_once_an_epoch(tmp_path: Path, small_images: Path, workers: int, split: bool) -> None:
    settings = ("train.batch_norm_groups=2", f"cluster.split_groups={str(split).lower()}")
    plan = load_plan(make_run(tmp_path / "run", small_images, workers=workers, overrides=settings))
    assert plan is not None
    used: Counter[tuple[int, int]] = Counter()
    for shares in plan.placement.group_shares:
        for request in training_requests(plan.numerics, shares, rows=np.arange(46), first_step=0):
            used.update((request.epoch, int(index)) for index in request.indices)
    assert used == {(epoch, index): 1 for epoch in range(3) for index in range(46)}
