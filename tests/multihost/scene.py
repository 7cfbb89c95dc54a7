"""A run that is being disturbed, seen from its directory and from the processes of its hosts."""

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import TypeVar

from orchestrator.run.checkpoints import Checkpoint, list_checkpoints
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.progress import Progress, read_progress
from tests.multihost.conftest import Bed
from tests.multihost.disk import Disk
from tests.multihost.hosts import Host

T = TypeVar("T")

POLL_INTERVAL_S = 0.01
PATIENCE_S = 240.0


class HistoryError(AssertionError):
    """A run didn't do what was promised of it."""


@dataclass(slots=True, kw_only=True)
class Scene:
    """What faults act on and moments are seen in."""

    bed: Bed
    disk: Disk
    run: RunDirectory
    random: Random
    """Which rank a fault strikes."""
    spoiled: set[Path] = field(default_factory=set)
    """Checkpoints that a fault has damaged; they still look whole."""
    standstill: "Standstill" = field(default_factory=lambda: Standstill())

    def attempt(self) -> AttemptDirectory:
        """The newest attempt."""
        return self.run.attempt(self.run.newest_attempt()[0])

    def progress(self) -> Progress | None:
        """The newest attempt's figures; None if it has none yet, or the storage is away."""
        with contextlib.suppress(OSError):
            return read_progress(self.attempt().progress)
        return None

    def rank(self) -> int:
        """One of the two ranks that every run here has at least at some time; which is up to chance."""
        return self.random.randrange(2)

    def process_of(self, rank: int) -> int:
        """The process of a rank of the newest attempt, once there is one; of the first rank if there are fewer."""
        return self.until(lambda: self._process_of(rank) or self._process_of(0), f"a process of rank {rank}")

    def _process_of(self, rank: int) -> int | None:
        with contextlib.suppress(OSError):
            attempt = self.attempt()
            if attempt.worker_failures:
                return None  # those who are left of it are being ended
            log = attempt.rank_log(rank).read_text(errors="replace")
            found = re.search(r"worker \d+ of \d+, process (\d+)", log)
            if found is not None and is_alive(int(found[1])):
                return int(found[1])
        return None

    def host_of(self, rank: int) -> Host:
        """The host that a rank runs on."""
        return self.bed.hosts.host_of(self.process_of(rank))

    def process_on_head(self, pattern: str) -> int:
        """The process on the head whose command line has that in it."""

        def look() -> int | None:
            for process_id in self.bed.hosts.head.process_ids():
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{process_id}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                    line = b" ".join(words).decode(errors="replace")
                    if re.search(pattern, line):
                        return process_id
            return None

        return self.until(look, f"a process {pattern}")

    def newest_checkpoints(self) -> list[Checkpoint]:
        """The committed ones but those that are spoiled, newest first."""
        return [found for found in list_checkpoints(self.run.checkpoints)[::-1] if found.path not in self.spoiled]

    def until(self, look: Callable[[], T | None], what: str, *, every_s: float = POLL_INTERVAL_S) -> T:
        """What `look` sees, once it is something true."""
        deadline = monotonic() + PATIENCE_S
        while monotonic() < deadline:
            if seen := look():
                return seen
            sleep(every_s)
        raise HistoryError(f"{what}: not seen in {PATIENCE_S:.0f} s")

    def account(self) -> str:
        """Where the run is, for whoever reads of a failure."""
        log = self.run.attempt(1).logs / "driver.log"
        tail = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
        state = self.run.state.read_text() if self.run.state.exists() else "no state"
        return "\n".join([state, json.dumps(str(self.progress())), *tail])


class Standstill:
    """Processes that are stopped: for a moment, or until a fault is mended, whichever is longer."""

    def __init__(self) -> None:
        self._hung: set[int] = set()

    @contextlib.contextmanager
    def held(self, process_id: int) -> Iterator[None]:
        """Let a process stand still, so that a moment lasts for as long as it takes to strike."""
        send(process_id, signal.SIGSTOP)
        try:
            yield
        finally:
            if process_id not in self._hung:
                send(process_id, signal.SIGCONT)

    def hang(self, process_id: int) -> Callable[[], None]:
        """Stop a process; returns how it goes on."""
        self._hung.add(process_id)
        send(process_id, signal.SIGSTOP)

        def go_on() -> None:
            self._hung.discard(process_id)
            send(process_id, signal.SIGCONT)

        return go_on


def send(process_id: int, number: signal.Signals) -> None:
    """A signal; nothing if there is no such process any more."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, number)


def is_alive(process_id: int) -> bool:
    """Whether a process is there and not just not buried yet."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
