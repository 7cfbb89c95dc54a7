"""The states of a run, and the record of the one it is in.

    PENDING → STARTING → RUNNING ⇄ RECOVERING
                            ↓          ↓
                         STOPPING → STOPPED        SUCCEEDED, FAILED from any that is active

A finished run never changes, except that STOPPED and FAILED lead back to PENDING when the run is resumed. LOST is no
state that anybody writes: it is how a reader calls an active run whose writer stopped renewing its lease.
"""

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from orchestrator.errors import StorageError
from orchestrator.redaction import redacted
from orchestrator.run import documents, files


class State(StrEnum):
    """Where a run is in its life."""

    PENDING = "PENDING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    RECOVERING = "RECOVERING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    LOST = "LOST"

    @property
    def is_active(self) -> bool:
        """Whether a writer should be renewing the lease."""
        return self in (State.STARTING, State.RUNNING, State.RECOVERING, State.STOPPING)

    @property
    def is_finished(self) -> bool:
        """Whether nothing more happens unless somebody asks for it."""
        return self in (State.SUCCEEDED, State.STOPPED, State.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRecord:
    """What state.json says. Times are seconds since 1970."""

    state: State
    reason: str
    attempt: int
    created_at: float
    updated_at: float
    finished_at: float | None = None
    exit_code: int | None = None
    """What an attached command exits with, once the run is finished."""
    job_id: str | None = None
    """The Ray job that drives the run."""
    cluster_address: str | None = None
    """Where that job was submitted to."""
    after: tuple[str, ...] = ()
    """Runs of the same storage that must have SUCCEEDED before it begins."""


def create_state(path: Path, record: StateRecord) -> bool:
    """Write the first state.json; False if there is one."""
    return files.create_exclusively(path, files.json_bytes(asdict(record)))


def write_state(path: Path, record: StateRecord) -> None:
    """Replace state.json."""
    files.write_json(path, asdict(replace(record, reason=redacted(record.reason))))


def read_state(path: Path) -> StateRecord:
    """Read state.json. Raises StorageError if it is damaged, FileNotFoundError if there is none."""
    document = files.read_json(path)
    try:
        return documents.record(StateRecord, document)
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}; restore it or start a new run") from error
