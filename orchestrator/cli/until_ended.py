"""Looking at a run until it has ended, however the storage behaves in the meantime; and what that end exits with."""

from collections.abc import Callable, Iterator
from time import monotonic, time
from typing import TypeVar

from orchestrator.cli.output import human_time, stderr
from orchestrator.cli.submit import fault_of_pending
from orchestrator.errors import ClusterError, RunLostError, StorageError, TimedOutError
from orchestrator.monitor.poller import Poller
from orchestrator.run.directory import RunDirectory
from orchestrator.run.state import State
from orchestrator.run.status import RunStatus, read_status

T = TypeVar("T")

POLL_INTERVAL_S = 0.5
PENDING_CHECK_INTERVAL_S = 5.0
SILENCE_S = 5.0
"""From this long without an answer of the storage on, it is said."""
PATIENCE_S = 600.0
"""So long a storage may be gone before a command gives up."""
LOST_GRACE_S = 10.0
"""So long a run must read LOST before it counts: after a storage was gone, its driver needs a moment to be heard of."""


def exit_code(status: RunStatus) -> int:
    """What a command that waits for a run exits with."""
    if status.state is State.LOST:
        return RunLostError.exit_code
    return status.record.exit_code if status.record.exit_code is not None else 1


def until_ended(
    run: RunDirectory, look: Callable[[RunStatus], T], *, timeout_s: float | None = None
) -> Iterator[tuple[RunStatus, T]]:
    """The run's status, and what `look` makes of it, twice a second; the last one is of the run as it ended.

    `look` is called in a thread. A storage that can't be read, or hangs, is waited for, and said on stderr.
    Raises TimedOutError; ClusterError if the run's job can never begin; what the storage said if it stays away.
    """

    def see() -> tuple[RunStatus, T]:
        status = read_status(run, now=time())
        return status, look(status)

    poller = Poller(see, interval_s=POLL_INTERVAL_S)
    deadline = monotonic() + timeout_s if timeout_s is not None else float("inf")
    silence, verdict = _Silence(poller), _Verdict()
    try:
        while True:
            silence.notice()
            seen = poller.take(min(1.0, max(deadline - monotonic(), 0.0)))
            if seen is not None:
                yield seen
                if verdict.is_over(seen[0]):
                    return
            if monotonic() >= deadline:
                raise TimedOutError(
                    f"{run.name} hasn't ended within {human_time(timeout_s or 0.0)}; it goes on: see "
                    f"`dnctl status {run.name}`"
                )
    finally:
        poller.close()


class _Silence:
    """Says once that the storage doesn't answer, and once that it does again."""

    def __init__(self, poller: Poller[T]) -> None:
        self._poller = poller
        self._began_at: float | None = None

    def notice(self) -> None:
        """Look at how long the storage has been silent. Raises its fault when it was silent for too long."""
        fault, silence_s = self._poller.fault, self._poller.silence_s
        if self._began_at is None and (fault is not None or silence_s > SILENCE_S):
            self._began_at = monotonic() - silence_s
            why = str(fault) if fault is not None else "it doesn't answer"
            self._say(f"can't look at the run: {why}; it is tried again for {human_time(PATIENCE_S)}")
        elif self._began_at is not None and fault is None and silence_s <= SILENCE_S:
            self._say(f"the storage answers again, after {human_time(monotonic() - self._began_at)}")
            self._began_at = None
        if silence_s > PATIENCE_S:
            raise fault or StorageError(
                f"the storage hasn't answered for {human_time(silence_s)}; how the run is isn't known"
            )

    @staticmethod
    def _say(text: str) -> None:
        stderr().print(text, markup=False, soft_wrap=True)


class _Verdict:
    """Whether a run has ended, from what was seen of it."""

    def __init__(self) -> None:
        self._lost_since: float | None = None
        self._checked_at = monotonic()

    def is_over(self, status: RunStatus) -> bool:
        """Raises ClusterError if the run is pending and its job can never begin."""
        if status.state is not State.LOST:
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = monotonic()
        if status.state is State.PENDING and monotonic() - self._checked_at > PENDING_CHECK_INTERVAL_S:
            self._checked_at = monotonic()
            fault = fault_of_pending(status)
            if fault is not None:
                raise ClusterError(f"run {status.run.name} can't begin: {fault}")
        is_lost = self._lost_since is not None and monotonic() - self._lost_since >= LOST_GRACE_S
        return status.state.is_finished or is_lost
