"""The turn of a run that is to begin after others: its driver waits for it, without workers and so without GPUs."""

import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from time import time

from orchestrator.errors import ClusterError, StorageError
from orchestrator.run import files
from orchestrator.run.after import what_it_waits_for
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.state import State

_log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 2.0
UNSAID = "waits for the storage to say how the runs before it are"

Tell = Callable[[State, str], None]
"""Takes a state and the reason for it, as long as the workers don't show by their progress how they are."""


class Turn:
    """When a run may begin."""

    def __init__(self, run: RunDirectory, attempt: AttemptDirectory, taken_over: Event, *, may_wait: bool) -> None:
        """taken_over: set when another driver has the run. may_wait: see `drive`."""
        self._run, self._attempt = run, attempt
        self._taken_over, self._may_wait = taken_over, may_wait
        self._has_waited = False

    def come(self, tell: Tell) -> bool:
        """Return when it has come; False if the run was taken over. Raises DnctlError if it never will."""
        while not self._taken_over.is_set():
            try:
                if self._has_come(tell):
                    return True
            except StorageError as error:  # gone for a moment: nothing was said of the others
                _log.warning("%s", error)
                self._refuse_to_wait(UNSAID)
                with suppress(StorageError):
                    tell(State.PENDING, UNSAID)
            self._taken_over.wait(LOOK_INTERVAL_S)
        return False

    def _has_come(self, tell: Tell) -> bool:
        files.require(self._run.path)
        reason = what_it_waits_for(self._run, now=time())
        if reason is None:
            if self._has_waited:
                write_began(self._attempt)
                tell(State.STARTING, "starting the workers")
            return True
        self._refuse_to_wait(reason)
        tell(State.PENDING, reason)
        return False

    def _refuse_to_wait(self, reason: str) -> None:
        if not self._may_wait:
            raise ClusterError(f"its place in the queue came up, but it {reason}; `dnctl resume` it after that")
        self._has_waited = True


def write_began(attempt: AttemptDirectory) -> None:
    """Note that an attempt has waited until now; the ledger counts that as queueing. Raises StorageError."""
    files.write_json(attempt.began, {"began_at": time()})
