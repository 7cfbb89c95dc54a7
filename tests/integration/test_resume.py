"""The contract: a run killed at any moment and resumed ends with the bits of the same run left alone."""

from pathlib import Path

import pytest

from tests.training import Trained, make_run, train_ranks

pytestmark = pytest.mark.slow

SETTINGS = ("model.drop_rate=0.2", "checkpoint.every_minutes=0.0001", "checkpoint.keep_last=2")
"""A checkpoint after every step; three steps an epoch, the third one short."""


def _undisturbed(tmp_path: Path, images: Path, workers: int, *settings: str) -> Trained:
    return train_ranks(make_run(tmp_path / "alone", images, workers=workers, overrides=settings), workers=workers)


def _killed(tmp_path: Path, images: Path, workers: int, deaths: list[str], *settings: str) -> Trained:
    run = make_run(tmp_path / "killed", images, workers=workers, overrides=settings)
    for death in deaths:
        train_ranks(run, workers=workers, die=death)
    return train_ranks(run, workers=workers)


@pytest.mark.parametrize(
    ("workers", "deaths"),
    [
        pytest.param(1, ["at:4", "at:7"], id="1 worker, twice, in the middle of epochs"),
        pytest.param(2, ["at:3", "saving:5"], id="2 workers, after a short batch, then while saving"),
        pytest.param(3, ["at:1", "saving:6"], id="3 workers, first step, then while saving the end of an epoch"),
    ],
)
def test_killed_and_resumed_ends_with_the_same_bits(
    tmp_path: Path, small_images: Path, workers: int, deaths: list[str]
) -> None:
    settings = (*SETTINGS, "train.batch_norm_groups=3")
    alone = _undisturbed(tmp_path, small_images, workers, *settings)
    killed = _killed(tmp_path, small_images, workers, deaths, *settings)
    assert killed.tensors_sha256() == alone.tensors_sha256()
    assert killed.losses() == alone.losses()
    assert killed.samples() == alone.samples()
    assert len(killed.events("training_resumes")) >= 1


def test_fused_blocks_resume_to_the_same_bits(tmp_path: Path, small_images: Path) -> None:
    settings = (*SETTINGS, "train.batch_norm_groups=3", "model.block=fused", "train.epochs=2")
    alone = _undisturbed(tmp_path, small_images, 2, *settings)
    killed = _killed(tmp_path, small_images, 2, ["at:4"], *settings)
    assert killed.tensors_sha256() == alone.tensors_sha256()
    assert killed.events("kernels_ready")[0]["kernels"] == "native"
    assert killed.events("first_step")[0]["first_step_s"] > 0


def test_a_split_group_resumes_to_the_same_bits(tmp_path: Path, small_images: Path) -> None:
    settings = (*SETTINGS, "train.batch_norm_groups=2", "cluster.split_groups=true", "train.epochs=2")
    alone = _undisturbed(tmp_path, small_images, 3, *settings)
    killed = _killed(tmp_path, small_images, 3, ["at:2"], *settings)
    assert killed.tensors_sha256() == alone.tensors_sha256()


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, small_images: Path) -> None:
    alone = _undisturbed(tmp_path, small_images, 1, *SETTINGS)
    run = make_run(tmp_path / "killed", small_images, workers=1, overrides=SETTINGS)
    killed = train_ranks(run, workers=1, die="at:5")
    newest = sorted(run.checkpoints.glob("step-*"))[-1] / "model.safetensors"
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    train_ranks(run, workers=1)
    assert killed.tensors_sha256() == alone.tensors_sha256()
    assert killed.events("checkpoint_passed_over")[0]["checkpoint"] == newest.parent.name


def test_a_change_of_world_size_in_the_middle_changes_no_bit(tmp_path: Path, small_images: Path) -> None:
    settings = (*SETTINGS, "train.batch_norm_groups=4")
    alone = _undisturbed(tmp_path, small_images, 1, *settings)
    run = make_run(tmp_path / "moved", small_images, workers=2, overrides=settings)
    train_ranks(run, workers=2, die="at:4")
    moved = train_ranks(make_run(run.path, small_images, workers=3, overrides=settings), workers=3)
    assert moved.tensors_sha256() == alone.tensors_sha256()
    assert moved.events("training_resumes")[0]["world_size_before"] == 2
