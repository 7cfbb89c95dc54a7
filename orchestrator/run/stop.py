"""The request that a run end: with a checkpoint or at once, by a person, a limit, or the queue that it runs in."""

from dataclasses import asdict, dataclass
from pathlib import Path
from time import time

from orchestrator.errors import StorageError
from orchestrator.run import documents, files


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest:
    """Why and how a run shall end."""

    reason: str | None = None
    """None: a person asked, and that is all there is to say."""
    now: bool = False
    """Its job is being ended, without a checkpoint; the workers need do nothing."""
    requeue: bool = False
    """The run waits for its next turn afterwards."""


def ask_to_stop(path: Path, *, now: bool = False) -> None:
    """Leave a person's request, whatever was asked before."""
    files.write_json(path, _document(StopRequest(now=now)))


def ask_first_to_stop(path: Path, request: StopRequest) -> None:
    """Leave a request, unless there is one: what a person asked for comes first."""
    files.create_exclusively(path, files.json_bytes(_document(request)))


def _document(request: StopRequest) -> dict[str, object]:
    return {**asdict(request), "asked_at": time()}


def read_stop_request(path: Path) -> StopRequest | None:
    """The request, if there is one; one that can't be read is a request all the same."""
    try:
        return documents.record(StopRequest, files.read_json(path))
    except FileNotFoundError:
        return None
    except (StorageError, ValueError) as error:
        return StopRequest(reason=f"a request that can't be read: {error}")
