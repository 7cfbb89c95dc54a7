"""The lease: who writes a run now, and until when.

The process that drives a run renews the lease every few seconds. A reader that finds it expired knows that the writer
is gone, whatever state.json says.
"""

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep, time

from orchestrator.errors import StorageError
from orchestrator.run import documents, files

RENEWAL_INTERVAL_S = 2.0
LEASE_DURATION_S = 10.0
LARGEST_CLOCK_DIFFERENCE_S = 2.0
"""Between nodes: with more, a lease that is held could look stale."""
RENEWALS_WATCHED = 2.0
"""Of a lease that has run out by the clock: so many intervals without a renewal, and its holder is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What lease.json says. Times are seconds since 1970."""

    holder: str
    """The driver's own random name, so that no two drivers are taken for one."""
    host: str
    process_id: int
    attempt: int
    renewed_at: float
    expires_at: float

    @property
    def is_given_back(self) -> bool:
        """Whether the holder has ended and said so here."""
        return self.expires_at == 0.0

    def is_live(self, now: float) -> bool:
        """Whether the holder renewed in time. A lease from the future (a clock that jumped) counts as stale."""
        return self.renewed_at - LEASE_DURATION_S <= now < self.expires_at


def read_lease(path: Path) -> Lease | None:
    """The lease, or None if nobody ever held one or the file is no lease."""
    try:
        return documents.record(Lease, files.read_json(path))
    except (FileNotFoundError, StorageError, ValueError):
        return None


def living_holder(path: Path) -> Lease | None:
    """The holder of a lease if it turns out to be alive; waits until the lease is renewed or has expired.

    What the lease says of times isn't taken for granted, since clocks jump and those of two machines differ: one that
    was not given back is watched for some renewals, however old it looks.
    """
    seen = read_lease(path)
    if seen is None or seen.is_given_back:
        return None
    left_s = seen.expires_at - time() if seen.is_live(time()) else 0.0
    deadline = monotonic() + max(left_s, RENEWALS_WATCHED * RENEWAL_INTERVAL_S)
    while monotonic() < deadline:
        sleep(min(0.2, RENEWAL_INTERVAL_S))
        current = read_lease(path)
        if current is not None and current.renewed_at != seen.renewed_at:
            return current
    return None


class LeaseKeeper:
    """Renews a lease from a thread of its own until closed; tells when a newer attempt has taken the run over."""

    def __init__(self, path: Path, *, holder: str, newest_attempt: Callable[[], tuple[int, str]]) -> None:
        """newest_attempt: gives the number and the holder of the run's newest attempt."""
        self._path = path
        self._holder = holder
        self._newest_attempt = newest_attempt
        self._closed = Event()
        self.taken_over = Event()
        self._renew()
        self._thread = Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        attempt, holder = self._newest_attempt()
        if holder != self._holder:
            self.taken_over.set()
            return
        now = time()
        lease = Lease(
            holder=self._holder,
            host=socket.gethostname(),
            process_id=os.getpid(),
            attempt=attempt,
            renewed_at=now,
            expires_at=now + LEASE_DURATION_S,
        )
        files.write_json(self._path, asdict(lease))

    def _keep(self) -> None:
        while not self._closed.wait(RENEWAL_INTERVAL_S) and not self.taken_over.is_set():
            try:
                self._renew()
            except (StorageError, OSError):
                continue  # a storage that fails for a moment must not end the run; the lease goes stale if it lasts

    def close(self) -> None:
        """Stop renewing and give the lease back, so that the next driver needn't wait for it to expire."""
        self._closed.set()
        self._thread.join()
        lease = read_lease(self._path)
        if lease is not None and lease.holder == self._holder:
            with contextlib.suppress(StorageError):  # then it expires by itself
                files.write_json(self._path, asdict(replace(lease, renewed_at=0.0, expires_at=0.0)))
