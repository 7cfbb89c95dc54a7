"""The limits of a run's recipe: its driver asks it to stop, as a person would, when it has taken what it may."""

import logging
from threading import Event, Thread
from time import time

from orchestrator.errors import DnctlError
from orchestrator.run.directory import RunDirectory
from orchestrator.run.spent import Limits, read_spent
from orchestrator.run.stop import StopRequest, ask_first_to_stop

_log = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0


class LimitWatch:
    """Watches what a run takes, and leaves a stop request when that is enough."""

    def __init__(self, run: RunDirectory, limits: Limits) -> None:
        self._run, self._limits = run, limits
        self._closing = Event()
        self._thread = Thread(target=self._follow, name="limits", daemon=True)
        if limits.max_hours is not None or limits.max_money is not None:
            self._thread.start()

    def _follow(self) -> None:
        while not self._closing.wait(POLL_INTERVAL_S):
            try:
                if self._look():
                    return
            except (DnctlError, OSError) as error:  # a storage that fails for a moment
                _log.warning("can't count what the run takes: %s", error)

    def _look(self) -> bool:
        reason = self._limits.reached(read_spent(self._run, now=time()))
        if reason is None:
            return False
        _log.info("%s", reason)
        ask_first_to_stop(self._run.stop_request, StopRequest(reason=reason))
        return True

    def close(self) -> None:
        """Watch no more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
