"""How far a run is: the figures that rank 0 leaves in progress.json for whoever asks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from orchestrator.errors import StorageError
from orchestrator.run import documents, files


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The newest figures of an attempt. Accuracies are in percent, None where not known yet."""

    step: int
    """Optimiser steps done since the run began."""
    num_steps: int
    epoch: int
    """Completed epochs."""
    num_epochs: int
    steps_per_epoch: int
    world_size: int
    first_step: int = 0
    """The step at which this attempt began."""
    loss: float | None = None
    learning_rate: float | None = None
    train_top1: float | None = None
    top1: float | None = None
    """The latest validation."""
    top5: float | None = None
    best_top1: float | None = None
    test_top1: float | None = None
    """Of the test set, once the run is over, where images are held out; likewise the next."""
    test_top5: float | None = None
    images_per_s: float | None = None
    data_s: float | None = None
    """Seconds a step waiting for images, as of the newest figures; likewise the next two."""
    compute_s: float | None = None
    communication_s: float | None = None
    eta_s: float | None = None
    last_checkpoint: str | None = None
    last_checkpoint_at: float | None = None
    checkpoint_hold_s: float | None = None
    """For how long the latest checkpoint held up the steps."""
    checkpoint_write_s: float | None = None
    """How long the writing of the latest took behind them."""
    checkpoint_interval_s: float | None = None
    """From one checkpoint by the clock to the next; None if there are none by the clock."""
    at: float | None = None
    """When the figures were taken, in seconds since 1970."""
    num_rolled_back: int = 0
    """Steps that this attempt has undone because of a divergence."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Where the time since the first step began went: data, compute, communication, checkpoint, evaluation."""
    activity: str = "starting"
    """What the workers are doing: starting, training, evaluating, saving."""


def write_progress(path: Path, progress: Progress) -> None:
    """Replace progress.json."""
    files.write_json(path, asdict(progress))


def read_progress(path: Path) -> Progress | None:
    """The figures, or None where there are none or they are damaged: status must work whatever lies there."""
    try:
        return documents.record(Progress, files.read_json(path))
    except (FileNotFoundError, StorageError, ValueError):
        return None
