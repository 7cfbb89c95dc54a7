"""HTTP to a metadata server: the address that every machine of a cloud can ask about itself.

It is on the link, so neither proxies nor redirects are followed. Every call ends within a time, whatever the server
does, and reads so much at most.
"""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from orchestrator.errors import MetadataError

TIMEOUT_S = 5.0
MAX_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    text: str

    def json(self) -> Any:
        """The body as JSON. Raises MetadataError."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            raise MetadataError(f"a metadata server answered {self.text[:80]!r} where JSON belongs") from None


class MetadataServer:
    """A metadata server, at the address of a cloud or of a test."""

    def __init__(self, address: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """address: http://HOST[:PORT]. timeout_s: after which a call ends without an answer."""
        parts = urlsplit(address)
        assert parts.hostname is not None
        self.address = address
        self._timeout_s = timeout_s
        self._host, self._port = parts.hostname, parts.port or 80

    def get(self, path: str, headers: Mapping[str, str], *, held_s: float = 0.0) -> Answer:
        """Ask. held_s: for how long the server itself may hold the question."""
        return self.call("GET", path, headers, held_s=held_s)

    def call(
        self, method: str, path: str, headers: Mapping[str, str], *, body: str = "", held_s: float = 0.0
    ) -> Answer:
        """Ask or tell. Any status is an answer. Raises MetadataError if there is none."""
        timeout_s = self._timeout_s + held_s
        deadline = monotonic() + timeout_s
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            connection.connect()
            socket = connection.sock
            connection.request(method, path, body=body.encode(), headers=dict(headers))
            response = connection.getresponse()
            content = b""
            # A byte now and then would renew the time-out of the socket for ever.
            while chunk := response.read1(_CHUNK_BYTES):
                content += chunk
                if len(content) > MAX_BYTES:
                    raise MetadataError(f"{self.address}{path} answers with more than {MAX_BYTES} bytes")
                if (left_s := deadline - monotonic()) <= 0:
                    raise TimeoutError
                socket.settimeout(left_s)
            return Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                text=content.decode(errors="replace"),
            )
        except TimeoutError:
            raise MetadataError(f"{self.address}{path} hasn't answered in {timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or f"{type(error).__name__} {error}".strip()
            raise MetadataError(f"{self.address}{path} can't be asked: {reason}") from None
        finally:
            connection.close()

    def refusal(self, path: str, answer: Answer) -> MetadataError:
        """What to raise for an answer of a status that has no meaning here."""
        return MetadataError(f"{self.address}{path} answers HTTP {answer.status}: {answer.text[:80]!r}")
