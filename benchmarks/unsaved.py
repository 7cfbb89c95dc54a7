"""A reporter for loops that are measured: it tells nobody and saves nothing."""

from pathlib import Path

from orchestrator.run.checkpoints import Checkpoint
from orchestrator.train.reporter import SilentReporter


class UnsavedReporter(SilentReporter):
    """For first ranks, which would otherwise have to keep checkpoints."""

    def save(self, *, step: int, **_: object) -> Checkpoint:
        """Save nothing."""
        return Checkpoint(path=Path("nowhere"), step=step, attempt=1)
