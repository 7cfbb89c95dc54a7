"""AWS: spot interruptions and rebalance recommendations, by version 2 of the instance metadata service.

Every question carries a token, which is asked for first and renewed before it expires. Version 1, without one, is never
used: a server that gives no token is taken for one that doesn't answer.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from time import time

from orchestrator.engine.notices.metadata import TIMEOUT_S, Answer, MetadataServer
from orchestrator.engine.notices.notice import Notice
from orchestrator.errors import MetadataError

ADDRESS = "http://169.254.169.254"
TOKEN_LIFE_S = 21600
"""The longest that AWS grants."""
RENEW_BEFORE_S = 60.0
_TOKEN = "/latest/api/token"  # noqa: S105 — a path
_INTERRUPTION = "/latest/meta-data/spot/instance-action"
_REBALANCE = "/latest/meta-data/events/recommendations/rebalance"


class Aws:
    """An instance of EC2."""

    name = "AWS"
    interval_s = 5.0
    """As AWS recommends."""

    def __init__(
        self, address: str = ADDRESS, *, clock: Callable[[], float] = time, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._server = MetadataServer(address, timeout_s=timeout_s)
        self._clock = clock
        self._token = ""
        self._token_ends_at = 0.0

    def look(self) -> Notice | None:
        """An interruption, two minutes ahead; else the advice to leave since one is likely, without a time."""
        interruption = self._ask(_INTERRUPTION)
        if interruption is not None:
            try:
                document = interruption.json()
                action, at = str(document["action"]), _seconds(str(document["time"]))
            except (KeyError, TypeError, ValueError):
                raise self._server.refusal(_INTERRUPTION, interruption) from None
            return Notice(cloud=self.name, what=f"spot interruption ({action})", deadline=at)
        if self._ask(_REBALANCE) is not None:
            return Notice(cloud=self.name, what="rebalance recommendation", deadline=None)
        return None

    def acknowledge(self, notice: Notice) -> None:
        """AWS asks for no answer."""

    def _ask(self, path: str) -> Answer | None:
        """What is there; None if nothing is (404)."""
        answer = self._with_token(path)
        if answer.status == 401:  # the token has gone before its time, as after a stop and start
            self._token_ends_at = 0.0
            answer = self._with_token(path)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self._server.refusal(path, answer)
        return answer

    def _with_token(self, path: str) -> Answer:
        if self._clock() > self._token_ends_at - RENEW_BEFORE_S:
            self._renew()
        return self._server.get(path, {"X-aws-ec2-metadata-token": self._token})

    def _renew(self) -> None:
        now = self._clock()
        answer = self._server.call("PUT", _TOKEN, {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_LIFE_S)})
        token = answer.text.strip()
        if answer.status != 200 or not token.isascii() or not token.isprintable() or not token:
            raise MetadataError(
                f"{self._server.address} gives no token for its version 2 (HTTP {answer.status}): turn the instance's "
                "metadata service on; in containers it needs a hop limit of 2"
            )
        self._token, self._token_ends_at = token, now + TOKEN_LIFE_S


def _seconds(text: str) -> float:
    """'2026-09-18T08:22:00Z' in seconds since 1970. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
