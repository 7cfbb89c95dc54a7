"""A storage that is away is waited for; what waiting doesn't mend isn't."""

import errno
import os
from pathlib import Path
from threading import Timer
from time import time

import pytest

from orchestrator.errors import CheckpointError, StorageError
from orchestrator.run import files
from orchestrator.run.checkpoints import checkpoint_path, write_checkpoint
from orchestrator.run.directory import RunDirectory
from orchestrator.run.patience import patiently
from orchestrator.train.reporter import RunReporter
from tests.checkpoint_files import contents_of


def failing_with(number: int, *, times: int) -> list[OSError | None]:
    return [*(OSError(number, os.strerror(number)) for _ in range(times)), None]


def asked(answers: list[OSError | None]) -> str:
    with files.translated("read", Path("run")):
        if (error := answers.pop(0)) is not None:
            raise error
    return "there"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOSPC, errno.EIO, errno.ESTALE])
def test_a_storage_that_comes_back_is_waited_for(number: int):
    answers = failing_with(number, times=3)
    assert patiently(lambda: asked(answers), pause_s=0) == "there"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_missing_rights_are_said_at_once(number: int):
    answers = failing_with(number, times=1)
    with pytest.raises(StorageError):
        patiently(lambda: asked(answers))
    assert answers == [None], "asked once"


def test_what_is_damaged_is_said_at_once():
    def damaged() -> None:
        raise CheckpointError("checkpoint step-3.1 is damaged")

    with pytest.raises(CheckpointError):
        patiently(damaged)


def test_patience_ends():
    answers = failing_with(errno.ENOSPC, times=3)
    with pytest.raises(StorageError, match="the disk is full"):
        patiently(lambda: asked(answers), patience_s=0)


def test_a_run_whose_storage_is_away_is_not_taken_for_one_without_checkpoints(tmp_path: Path):
    run = RunDirectory(tmp_path / "run")
    run.create(now=time())
    attempt = run.claim_attempt("holder")
    write_checkpoint(
        checkpoint_path(run.checkpoints, step=7, attempt=1), contents_of(7), metrics={}, may_commit=lambda: None
    )
    reporter = RunReporter(run, attempt=attempt.number, keep_last=1, keep_best=0)
    run.path.rename(tmp_path / "away")
    Timer(0.3, lambda: (tmp_path / "away").rename(run.path)).start()
    found = reporter.resume_from()
    reporter.close()
    assert found is not None
    assert found[0].step == 7
