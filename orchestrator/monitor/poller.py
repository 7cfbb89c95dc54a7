"""Looking again and again from a thread, so that whoever shows what was seen never waits for storage."""

from collections.abc import Callable
from queue import Empty, Queue
from threading import Event, Thread
from time import monotonic
from typing import Generic, TypeVar

from orchestrator.errors import DnctlError, StorageError

T = TypeVar("T")

PAUSE_FACTOR = 4
"""A look that took long is followed by a pause this many times as long: a slow storage isn't made slower."""
MAX_UNTAKEN = 4


class Poller(Generic[T]):
    """Calls a function in a daemon thread until closed. A call that hangs or fails shows as silence and a fault."""

    def __init__(self, look: Callable[[], T], *, interval_s: float) -> None:
        self._look = look
        self._interval_s = interval_s
        self._seen: Queue[T] = Queue(MAX_UNTAKEN)
        self._closing = Event()
        self._answered_at = monotonic()
        self.fault: DnctlError | None = None
        """What the last look failed with; None if it succeeded."""
        Thread(target=self._run, name="poller", daemon=True).start()

    @property
    def silence_s(self) -> float:
        """Seconds since a look last succeeded, or since the beginning."""
        return monotonic() - self._answered_at

    def take(self, timeout_s: float) -> T | None:
        """The oldest thing seen and not taken yet, each once; None if nothing comes in time."""
        try:
            return self._seen.get(timeout=timeout_s) if timeout_s > 0 else self._seen.get_nowait()
        except Empty:
            return None

    def take_newest(self) -> T | None:
        """The newest thing seen, if it wasn't taken yet; never waits."""
        newest = None
        while (seen := self.take(0)) is not None:
            newest = seen
        return newest

    def close(self) -> None:
        """Look no more. Doesn't wait for a look that hangs."""
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            began_at = monotonic()
            try:
                seen = self._look()
            except DnctlError as error:
                self.fault = error
            except OSError as error:
                self.fault = StorageError(f"the storage can't be read: {error}")
            else:
                self._answered_at, self.fault = monotonic(), None
                self._seen.put(seen)
            self._closing.wait(max(self._interval_s, PAUSE_FACTOR * (monotonic() - began_at)))
