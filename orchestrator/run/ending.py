"""How an attempt ended, as its workers say it: one file, and the first worker that knows writes it."""

from dataclasses import asdict, dataclass, replace
from typing import Literal

from orchestrator.errors import DnctlError, RunStoppedError, StorageError
from orchestrator.redaction import redacted
from orchestrator.run import documents, files
from orchestrator.run.directory import AttemptDirectory

Outcome = Literal["finished", "stopped", "paused", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of an attempt that its workers brought about; one that crashed has none."""

    outcome: Outcome
    reason: str
    exit_code: int


def failure(error: DnctlError) -> Ending:
    """The ending of an attempt that met an error which trying again wouldn't mend, or that wasn't to begin."""
    outcome: Outcome = "stopped" if isinstance(error, RunStoppedError) else "failed"
    return Ending(outcome=outcome, reason=str(error), exit_code=error.exit_code)


def record_ending(attempt: AttemptDirectory, ending: Ending) -> None:
    """Say how the attempt ended, unless somebody has."""
    kept = replace(ending, reason=redacted(ending.reason))
    files.create_exclusively(attempt.ending, files.json_bytes(asdict(kept)))


def read_ending(attempt: AttemptDirectory) -> Ending | None:
    """How the attempt ended; None while it goes on, or if nobody could say."""
    try:
        return documents.record(Ending, files.read_json(attempt.ending))
    except (FileNotFoundError, StorageError, ValueError):
        return None
