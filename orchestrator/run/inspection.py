"""What checkpoints a run has and which of them can be believed: at a glance by their sizes, or by every byte."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from orchestrator.errors import CheckpointError, StorageError
from orchestrator.plan.version import FORMAT_VERSION
from orchestrator.run import files
from orchestrator.run.checkpoints import (
    COMMITTED,
    Checkpoint,
    OnBytes,
    check_sizes,
    is_committed,
    list_entries,
    read_manifest,
    read_whole,
)
from orchestrator.run.directory import RunDirectory

Verdict = Literal["committed", "whole", "damaged", "not committed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """A checkpoint and what is known of it."""

    checkpoint: Checkpoint
    verdict: Verdict
    """"committed": marker, manifest and sizes fit, the bytes weren't read; "whole": they were; "not committed": it is
    being written, or its writing was cut short, and counts as absent."""
    fault: str | None = None
    """What is wrong with one that is damaged."""
    num_bytes: int | None = None
    """By its manifest."""
    saved_at: float | None = None
    """When it was committed, in seconds since 1970."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)

    def to_json(self, *, now: float, steps_per_epoch: int | None) -> dict[str, Any]:
        """As `dnctl checkpoint … --json` shows it."""
        checkpoint = self.checkpoint
        return {
            "checkpoint": checkpoint.path.name,
            "path": str(checkpoint.path),
            "step": checkpoint.step,
            "attempt": checkpoint.attempt,
            "epoch": checkpoint.step / steps_per_epoch if steps_per_epoch else None,
            "bytes": self.num_bytes,
            "saved_at": self.saved_at,
            "age_s": None if self.saved_at is None else max(now - self.saved_at, 0.0),
            "top1": self.metrics.get("top1"),
            "top5": self.metrics.get("top5"),
            "verdict": self.verdict,
            "fault": self.fault,
        }


def glance(checkpoint: Checkpoint) -> Inspected:
    """Marker, manifest and sizes of a checkpoint; its tensors aren't read. Raises StorageError."""
    if not is_committed(checkpoint):
        return Inspected(checkpoint=checkpoint, verdict="not committed")
    with files.translated("look at", checkpoint.path):
        saved_at = (checkpoint.path / COMMITTED).stat().st_mtime
    try:
        manifest = read_manifest(checkpoint.path)
        seen = Inspected(
            checkpoint=checkpoint,
            verdict="committed",
            num_bytes=sum(num_bytes for num_bytes, _ in manifest.files.values()),
            saved_at=saved_at,
            metrics=manifest.metrics,
        )
    except CheckpointError as error:
        return Inspected(checkpoint=checkpoint, verdict="damaged", fault=str(error), saved_at=saved_at)
    try:
        check_sizes(checkpoint.path, manifest)
    except CheckpointError as error:
        return replace(seen, verdict="damaged", fault=str(error))
    return seen


def glance_at_all(run: RunDirectory) -> list[Inspected]:
    """Every checkpoint of a run, committed or not, oldest first. Raises StorageError."""
    return [glance(checkpoint) for checkpoint in list_entries(run.checkpoints)]


def verify(seen: Inspected, *, on_bytes: OnBytes) -> Inspected:
    """Read and hash every byte of a checkpoint that looked right. Never raises for what is wrong with it."""
    if seen.verdict != "committed":
        return seen
    try:
        read_whole(seen.checkpoint, on_bytes=on_bytes)
    except CheckpointError as error:
        if not is_committed(seen.checkpoint):
            return replace(seen, verdict="not committed", fault="deleted meanwhile")
        return replace(seen, verdict="damaged", fault=str(error))
    return replace(seen, verdict="whole")


def to_resume_from(verified: Sequence[Inspected]) -> Checkpoint | None:
    """The one that a resume would take: the newest that is whole."""
    return next((seen.checkpoint for seen in reversed(verified) if seen.verdict == "whole"), None)


def steps_per_epoch(run_path: Path) -> int | None:
    """Of the run that lies there; None if its plan isn't there or can't be read."""
    try:
        plan = files.read_json(RunDirectory(run_path).plan, format_version=FORMAT_VERSION)
        steps = plan["numerics"]["steps_per_epoch"]
    except (FileNotFoundError, StorageError, KeyError, TypeError):
        return None
    return steps if isinstance(steps, int) and steps > 0 else None
