"""The watch over notices: one thread in one process of a node, and none where there is no cloud."""

import logging
from collections.abc import Callable
from threading import Event, Thread

from orchestrator.engine.notices.notice import Cloud, Notice
from orchestrator.errors import ClusterError, MetadataError

_log = logging.getLogger(__name__)

RETRY_S = 5.0
"""After a look that failed."""


class NoticeWatch:
    """Asks a cloud for notices for as long as it is open, and hands on each one that is news.

    A server that is away, hangs or talks nonsense is logged once, and once more when it is well again.
    """

    def __init__(self, cloud: Cloud, announce: Callable[[Notice], None], *, retry_s: float = RETRY_S) -> None:
        """announce: may raise ClusterError, and is then called again."""
        self._cloud = cloud
        self._announce = announce
        self._retry_s = retry_s
        self._announced: Notice | None = None
        self._is_at_fault = False
        self._closing = Event()
        self._thread = Thread(target=self._follow, name="notices", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        _log.info("this machine is of %s: looking for its notices", self._cloud.name)
        while not self._closing.is_set():
            self._closing.wait(self._cloud.interval_s if self._look() else self._retry_s)

    def _look(self) -> bool:
        """Look once; whether all went well."""
        try:
            notice = self._cloud.look()
        except MetadataError as error:
            return self._fail(f"no notices from {self._cloud.name}: {error}")
        if notice is not None and notice != self._announced and not self._closing.is_set():
            try:
                self._announce(notice)
            except ClusterError as error:
                return self._fail(f"{notice} can't be announced: {error}")
            self._announced = notice
            _log.warning("announced: %s", notice)
        if self._is_at_fault:
            _log.info("%s is asked for notices again", self._cloud.name)
            self._is_at_fault = False
        return True

    def _fail(self, fault: str) -> bool:
        if not self._is_at_fault:
            _log.warning("%s; tried again every %g s", fault, self._retry_s)
        self._is_at_fault = True
        return False

    def acknowledge(self) -> None:
        """Tell the cloud that what it announced may begin, if it announced something and wants to hear."""
        if self._announced is not None:
            try:
                self._cloud.acknowledge(self._announced)
            except MetadataError as error:
                _log.warning("%s", error)

    def close(self) -> None:
        """Look no more. A look that is under way isn't waited for, and what it finds isn't handed on."""
        self._closing.set()
