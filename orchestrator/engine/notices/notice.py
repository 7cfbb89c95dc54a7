"""A notice that this machine will go away, and what each cloud's way of giving one has in common."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What a cloud announced."""

    cloud: str
    """Its name, for people."""
    what: str
    """What will happen, in the cloud's own terms: 'spot interruption (terminate)'."""
    deadline: float | None
    """Until when the machine is there for sure, in seconds since 1970; None if the cloud doesn't say."""
    event: str = ""
    """The cloud's own name for the event, by which it is acknowledged."""

    def __str__(self) -> str:
        return f"{self.cloud} {self.what}"


class Cloud(Protocol):
    """One cloud's metadata server, as seen from a machine of its own."""

    name: str
    interval_s: float
    """How long to wait between two looks."""

    def look(self) -> Notice | None:
        """What is announced now; None if nothing is. Returns within half a minute. Raises MetadataError."""

    def acknowledge(self, notice: Notice) -> None:
        """Tell the cloud that nothing is left to lose here. Raises MetadataError."""
