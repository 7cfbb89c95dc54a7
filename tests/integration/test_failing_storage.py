"""A training on a disk that fills up, or becomes read-only, in the middle: a real one, of a few megabytes."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from orchestrator.data.index import index_dataset
from orchestrator.engine.planning import load_plan
from orchestrator.errors import StorageError
from orchestrator.run.checkpoints import Checkpoint, newest_whole, read_checkpoint
from orchestrator.run.directory import RunDirectory
from orchestrator.train import saving
from orchestrator.train.loop import Outcome, train
from orchestrator.train.reporter import RunReporter
from orchestrator.train.world import World
from tests.training import Trained, make_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk"),
]
DISK_BYTES = 8 * 2**20
STEPS_OF_EPOCHS = [3, 6, 9]


class Disk:
    """A mounted disk that fails when it is told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        with self._ballast.open("wb") as file:
            try:
                while True:
                    file.write(b"\0" * 65536)
                    file.flush()
            except OSError:
                return

    def empty(self) -> None:
        self._ballast.unlink()

    def forbid(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True)

    def allow(self) -> None:
        subprocess.run(["mount", "-o", "remount,rw", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a disk here")
    monkeypatch.setattr(saving, "LAST_TRY_PAUSE_S", 0.05)
    yield Disk(path)
    subprocess.run(["umount", "-l", str(path)], check=True)


class FailingReporter(RunReporter):
    """Breaks the disk before the second checkpoint, and mends it after that has failed."""

    breaks: Callable[[], None]
    mends: Callable[[], None]

    def save(self, *, step: int, contents: Mapping[str, bytes], metrics: Mapping[str, float | None]) -> Checkpoint:
        if step != STEPS_OF_EPOCHS[1]:
            return super().save(step=step, contents=contents, metrics=metrics)
        self.breaks()
        try:
            return super().save(step=step, contents=contents, metrics=metrics)
        finally:
            found = newest_whole(self._run.checkpoints, passed_over=lambda *_: None)
            assert found is not None
            assert found[0].step == STEPS_OF_EPOCHS[0], "the last good one is intact while the disk fails"
            self.mends()


def train_on(disk: Disk, images: Path, *, how: str, on_failure: str) -> tuple[RunDirectory, Outcome | StorageError]:
    overrides = [f"checkpoint.on_failure={on_failure}", "checkpoint.every_minutes=null", "checkpoint.keep_last=2"]
    run = make_run(disk.path / "run", images, workers=1, overrides=overrides)
    attempt = run.claim_attempt("test")
    reporter = FailingReporter(run, attempt=attempt.number, keep_last=2, keep_best=0)
    reporter.breaks, reporter.mends = {"full": (disk.fill, disk.empty), "read-only": (disk.forbid, disk.allow)}[how]
    plan = load_plan(run)
    assert plan is not None
    try:
        return run, train(plan, index_dataset(str(images)), World.single(), reporter)
    except StorageError as error:
        return run, error
    finally:
        reporter.close()


@pytest.mark.parametrize(("how", "word"), [("full", "the disk is full"), ("read-only", "read-only")])
def test_a_run_goes_on_without_the_checkpoint_that_failed_and_says_so(
    disk: Disk, small_images: Path, how: str, word: str
):
    run, outcome = train_on(disk, small_images, how=how, on_failure="continue")
    assert outcome is Outcome.FINISHED
    trained = Trained(run)
    (failed,) = trained.events("checkpoint_failed")
    assert (failed["step"], failed["goes_on"]) == (STEPS_OF_EPOCHS[1], True)
    assert word in failed["reason"]
    assert [event["step"] for event in trained.events("checkpoint_saved")] == [STEPS_OF_EPOCHS[0], STEPS_OF_EPOCHS[2]]
    assert sorted(trained.rows()) == list(range(1, 10)), "no row of the metrics is missing"


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_run_stops_where_the_recipe_says_so_and_can_go_on_from_the_last_good_one(
    disk: Disk, small_images: Path, how: str
):
    run, outcome = train_on(disk, small_images, how=how, on_failure="stop")
    assert isinstance(outcome, StorageError)
    assert outcome.exit_code == 7
    (entry,) = run.checkpoints.iterdir()
    assert entry.name == f"step-{STEPS_OF_EPOCHS[0]:08d}.1"
    read_checkpoint(entry)
