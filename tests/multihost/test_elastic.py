"""A run takes every size from its least to its largest, down and up: no step twice, and the fixed run's losses."""

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.run.progress import read_progress
from orchestrator.run.segments import read_segments
from tests.images import write_folder
from tests.multihost.conftest import Bed, made_bed, wait_for_step
from tests.training import Trained, make_run, train_ranks

pytestmark = [
    pytest.mark.multihost,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(900),
]

SIZES = (3, 2, 1, 2, 3)
"""Of 3 groups: one each, 2 and 1, all, and back."""
EPOCHS, STEPS_PER_EPOCH, STEPS_AT_EACH_SIZE = 14, 50, 40
SETTINGS = (
    "model.name=densenet7_4",
    "guard.spike=null",
    "train.optimizer.lr=0.01",
    "data.train.image_size=16",
    "data.eval.resize=16",
    "data.eval.crop=16",
    "train.global_batch_size=12",
    "train.batch_norm_groups=3",
    "train.schedule.milestones=[0.5]",
    "model.drop_rate=0.2",
    "checkpoint.every_minutes=null",
)


@pytest.fixture(scope="module")
def wide_bed() -> Iterator[Bed]:
    """A head that computes nothing and three hosts that do."""
    with tempfile.TemporaryDirectory(prefix="mh") as place:
        folder = Path(place)
        images = write_folder(folder / "images", num_train=600, num_val=12, num_classes=3)
        with made_bed(folder, images, storage=folder / "runs", cpus=[0, 1, 1, 1]) as bed:
            yield bed


def test_every_size_in_the_middle_of_epochs(wide_bed: Bed, tmp_path: Path):
    fixed = make_run(tmp_path / "fixed", wide_bed.images, workers=1, overrides=[*SETTINGS, f"train.epochs={EPOCHS}"])
    undisturbed = train_ranks(fixed, workers=1)
    settings = [*SETTINGS, "cluster.cpus_per_worker=1", "cluster.resize_minutes=0"]
    run = wide_bed.launch("elastic", f"{{min: 1, max: {max(SIZES)}}}", epochs=EPOCHS, settings=settings)
    taken = []
    wait_for_step(run, STEPS_AT_EACH_SIZE, attempt=1)
    for number, (before, size) in enumerate(pairwise(SIZES), start=2):
        if size < before:
            taken.append(wide_bed.hosts.workers(before)[-1])
            wide_bed.hosts.drain(taken[-1], deadline_s=30)
        else:
            wide_bed.hosts.reboot(taken.pop())
        wait_for_step(run, number * STEPS_AT_EACH_SIZE, attempt=number)
    status = wide_bed.wait(run)
    assert status["state"] == "SUCCEEDED", status["reason"]
    assert [world_size_of(attempt.progress) for attempt in run.attempts()] == list(SIZES)
    done = [row["step"] for attempt in run.attempts() for row in read_segments(attempt.path, "metrics")]
    assert done == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1)), "every step once, in order"
    paused = [event["step"] for event in Trained(run).events("paused")]
    assert [event["step"] for event in Trained(run).events("training_resumes")] == paused, "each after a checkpoint"
    assert any(step % STEPS_PER_EPOCH for step in paused), "in the middle of an epoch"
    assert Trained(run).samples() == undisturbed.samples()
    assert Trained(run).losses() == undisturbed.losses()
    assert Trained(run).tensors_sha256() == undisturbed.tensors_sha256()


def world_size_of(path: Path) -> int:
    progress = read_progress(path)
    assert progress is not None
    return progress.world_size
