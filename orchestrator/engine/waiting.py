"""What a run waits for while its workers haven't begun: which room it needs, and what of that is free."""

import logging
from collections.abc import Mapping
from threading import Event, Thread

from orchestrator.engine import nodes
from orchestrator.engine.turn import Tell, write_began
from orchestrator.errors import DnctlError
from orchestrator.plan.plan import Placement
from orchestrator.run.directory import RunDirectory
from orchestrator.run.state import State

_log = logging.getLogger(__name__)

POLL_INTERVAL_S = 2.0


class WaitingForRoom:
    """Tells that the run is PENDING for as long as the cluster has too little room for its workers."""

    def __init__(self, run: RunDirectory, placement: Placement, worker: Mapping[str, float], tell: Tell) -> None:
        """worker: the resources that each worker takes."""
        self._attempt = run.attempt(run.newest_attempt()[0])
        self._num_workers = placement.min_world_size
        self._worker = worker
        self._tell = tell
        self._closing = Event()
        self._thread = Thread(target=self._follow, name="waiting", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        is_waiting = False
        while not self._closing.wait(POLL_INTERVAL_S):
            try:
                if self._attempt.worker_nodes.exists():
                    if is_waiting:
                        write_began(self._attempt)
                    return
                num_free = nodes.room_for(self._worker, nodes.free_resources())
            except (DnctlError, RuntimeError, OSError) as error:
                _log.warning("can't ask for free nodes: %s", error)
                continue
            if num_free < self._num_workers and not nodes.has_placed_workers():
                is_waiting = True
                self._tell(State.PENDING, self._what(num_free))
            elif is_waiting:
                is_waiting = False
                write_began(self._attempt)
                self._tell(State.STARTING, "starting the workers")

    def _what(self, num_free: int) -> str:
        each = " and ".join(f"{amount:g} {name}" for name, amount in self._worker.items() if amount > 0)
        return f"waits for room for {self._num_workers} workers of {each} each; there is room for {num_free} now"

    def close(self) -> None:
        """Watch no more."""
        self._closing.set()
        self._thread.join()
