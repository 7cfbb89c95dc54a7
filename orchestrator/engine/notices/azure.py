"""Azure: scheduled events: eviction of a spot VM, and whatever else ends or restarts it.

A document lists the events of all VMs of a scale set or availability set; the ones that name this VM count. Once the VM
has nothing left to lose the event is acknowledged, and Azure needn't wait for the rest of the notice.
"""

import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from orchestrator.engine.notices.metadata import TIMEOUT_S, MetadataServer
from orchestrator.engine.notices.notice import Notice
from orchestrator.errors import MetadataError

ADDRESS = "http://169.254.169.254"
LEAVING = {
    "Preempt": "spot eviction",
    "Terminate": "termination",
    "Reboot": "reboot",
    "Redeploy": "move to another host",
}
"""Event types after which what runs here is gone. A Freeze is a pause of seconds."""
_EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
_NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
_HEADERS = {"Metadata": "true"}


class Azure:
    """A VM of Azure."""

    name = "Azure"
    interval_s = 1.0
    """As Azure recommends; a spot VM gets half a minute."""

    def __init__(self, address: str = ADDRESS, *, timeout_s: float = TIMEOUT_S) -> None:
        self._server = MetadataServer(address, timeout_s=timeout_s)
        self._own_name = ""

    def look(self) -> Notice | None:
        """The earliest event that ends or restarts this VM."""
        # Where nobody has asked for events before, Azure takes up to two minutes to begin telling of them.
        answer = self._server.get(_EVENTS, _HEADERS)
        if answer.status != 200:
            raise self._server.refusal(_EVENTS, answer)
        document = answer.json()
        try:
            events = [event for event in document["Events"] if event["EventType"] in LEAVING]
            notices = [self._notice(event) for event in events if self._name() in event["Resources"]]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._server.refusal(_EVENTS, answer) from None
        return min(notices, key=lambda notice: notice.deadline or 0.0, default=None)

    def _notice(self, event: Mapping[str, Any]) -> Notice:
        """Raises KeyError, TypeError or ValueError for an event that isn't written as Azure does."""
        not_before = str(event["NotBefore"])
        return Notice(
            cloud=self.name,
            what=LEAVING[event["EventType"]],
            # It is empty once the event has begun.
            deadline=parsedate_to_datetime(not_before).timestamp() if not_before else None,
            event=str(event["EventId"]),
        )

    def _name(self) -> str:
        if not self._own_name:
            answer = self._server.get(_NAME, _HEADERS)
            if answer.status != 200 or not answer.text.strip():
                raise self._server.refusal(_NAME, answer)
            self._own_name = answer.text.strip()
        return self._own_name

    def acknowledge(self, notice: Notice) -> None:
        """Let Azure begin."""
        body = json.dumps({"StartRequests": [{"EventId": notice.event}]})
        answer = self._server.call("POST", _EVENTS, {**_HEADERS, "Content-Type": "application/json"}, body=body)
        if answer.status != 200:
            raise MetadataError(f"{self.name} doesn't take the answer to event {notice.event}: HTTP {answer.status}")
