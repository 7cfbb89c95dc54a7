"""The request that an attempt save a checkpoint and let its workers go: why, and which nodes are about to go away."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time

from orchestrator.errors import StorageError
from orchestrator.run import documents, files


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A node that is about to go away."""

    node: str
    """Ray's id of it."""
    host: str
    address: str
    deadline: float | None
    """Until when it is there, in seconds since 1970; None if that wasn't said."""
    cause: str | None
    """Who or what takes it away: 'AWS spot interruption (terminate)'; None if that wasn't said."""

    @property
    def label(self) -> str:
        """The node, for people."""
        return self.host if self.host == self.address else f"{self.host} ({self.address})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequest:
    """Why an attempt shall pause."""

    reason: str
    departures: tuple[Departure, ...] = ()
    """The nodes that it must leave; none if it pauses to become larger."""


def ask_to_pause(path: Path, request: PauseRequest) -> bool:
    """Leave the request, unless there is one; whether this one counts."""
    return files.create_exclusively(path, files.json_bytes({**asdict(request), "asked_at": time()}))


def read_pause_request(path: Path) -> PauseRequest | None:
    """The request, if there is one; one that can't be read is a request all the same."""
    try:
        return documents.record(PauseRequest, files.read_json(path))
    except FileNotFoundError:
        return None
    except (StorageError, ValueError) as error:
        return PauseRequest(reason=f"not readable: {error}")


def announcement(departures: Sequence[Departure], *, now: float) -> str:
    """Nodes that go away, in a sentence: which, when, and by whom."""
    first = min(departures, key=lambda departure: departure.deadline or float("inf"))
    when = f" in {max(first.deadline - now, 0.0):.0f} s" if first.deadline is not None else ""
    causes = ", ".join(sorted({departure.cause for departure in departures if departure.cause}))
    if len(departures) == 1:
        what = f"node {first.label} goes away{when}"
    else:
        labels = ", ".join(departure.label for departure in departures)
        what = f"{len(departures)} nodes go away{when and f', the first{when}'}: {labels}"
    return f"preemption announced: {causes}: {what}" if causes else f"preemption announced: {what}"
