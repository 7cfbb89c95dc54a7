"""Google Cloud: preemption of a spot VM, and maintenance of the host that ends the VM.

The server holds a question (`wait_for_change`) until the value is another than the one of the given ETag, so a
preemption, half a minute ahead, is known at once; maintenance is asked for whenever such a wait ends.
"""

from collections.abc import Callable
from time import time
from urllib.parse import quote

from orchestrator.engine.notices.metadata import TIMEOUT_S, MetadataServer
from orchestrator.engine.notices.notice import Notice
from orchestrator.errors import MetadataError

ADDRESS = "http://169.254.169.254"
PREEMPTION_NOTICE_S = 30.0
"""Compute Engine's documentation of spot VMs: from the notice to the forced stop."""
WAIT_S = 10
_INSTANCE = "/computeMetadata/v1/instance"
_HEADERS = {"Metadata-Flavor": "Google"}


class Gcp:
    """A VM of Compute Engine."""

    name = "Google Cloud"
    interval_s = 0.5
    """Between two waits."""

    def __init__(
        self,
        address: str = ADDRESS,
        *,
        clock: Callable[[], float] = time,
        wait_s: int = WAIT_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._server = MetadataServer(address, timeout_s=timeout_s)
        self._clock = clock
        self._wait_s = wait_s
        self._etag = ""
        self._preempted_at: float | None = None

    def look(self) -> Notice | None:
        """A preemption as soon as there is one; maintenance that ends the VM, for which no time is given."""
        if self._preempted_at is None and self._preempted() == "TRUE":
            self._preempted_at = self._clock()  # the server doesn't say when; nobody takes it back
        if self._preempted_at is not None:
            return Notice(
                cloud=self.name, what="preemption", deadline=self._preempted_at + PREEMPTION_NOTICE_S, event="preempted"
            )
        maintenance, _ = self._ask("maintenance-event")
        if maintenance == "TERMINATE_ON_HOST_MAINTENANCE":
            return Notice(cloud=self.name, what="host maintenance", deadline=None, event="maintenance-event")
        return None  # a VM that migrates goes on running

    def acknowledge(self, notice: Notice) -> None:
        """Google asks for no answer."""

    def _preempted(self) -> str:
        """TRUE or FALSE: at once when asked for the first time, then when it changes or the wait is over."""
        if not self._etag:
            value, self._etag = self._ask("preempted")
            return value
        etag, self._etag = self._etag, ""  # after a failure ask at once: a change may have passed meanwhile
        query = f"?wait_for_change=true&timeout_sec={self._wait_s}&last_etag={etag}"
        value, self._etag = self._ask("preempted", query, held_s=self._wait_s)
        return value

    def _ask(self, key: str, query: str = "", *, held_s: float = 0.0) -> tuple[str, str]:
        """A value and its ETag."""
        path = f"{_INSTANCE}/{key}"
        answer = self._server.get(path + query, _HEADERS, held_s=held_s)
        if answer.headers.get("metadata-flavor") != "Google":
            raise MetadataError(f"what answers at {self._server.address} is no metadata server of Google's")
        if answer.status != 200:
            raise self._server.refusal(path, answer)
        return answer.text.strip(), quote(answer.headers.get("etag", ""))
