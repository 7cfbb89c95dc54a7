"""Ends a worker that hangs: a collective that another rank never joins, a disk that never answers.

A hung process can't raise, so it says in its log where each of its threads is, and exits. Ray then starts the workers
again.
"""

import faulthandler
import logging
import os
import sys
from collections.abc import Callable
from threading import Event, Thread
from time import monotonic
from typing import Final

_log = logging.getLogger(__name__)

EXIT_CODE: Final = 75
"""EX_TEMPFAIL of sysexits.h: trying again may help."""


def end_process() -> None:
    """Exit at once: whatever hangs would hang an orderly exit, too."""
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    sys.stderr.flush()
    os._exit(EXIT_CODE)


class Watchdog:
    """Waits for a sign of life from the loop, from a thread of its own."""

    def __init__(self, limit_s: float, *, on_hang: Callable[[], None] = end_process) -> None:
        """limit_s: seconds without a sign after which `on_hang` is called."""
        self._limit_s = limit_s
        self._on_hang = on_hang
        self._seen_at = monotonic()
        self._closing = Event()
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def tick(self) -> None:
        """The loop is alive."""
        self._seen_at = monotonic()

    def _watch(self) -> None:
        while not self._closing.wait(min(1.0, self._limit_s / 4)):
            silent_s = monotonic() - self._seen_at
            if silent_s > self._limit_s:
                _log.error("no step for %.0f s: this worker hangs and is ended", silent_s)
                self._on_hang()
                return

    def close(self) -> None:
        """Watch no more."""
        self._closing.set()
        self._thread.join()
