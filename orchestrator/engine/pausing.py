"""When the workers of an attempt shall make room for others: a node is about to go, or there is room for more.

Ray would let an attempt train on until its node is gone, or end it in the middle of a step to make it larger. Here it
is asked to pause: after its next step it saves a checkpoint and ends, and the driver starts the next attempt on the
nodes that stay. No step is done twice (docs/adr/0012-workers-pause.md).
"""

import logging
from collections.abc import Mapping, Sequence
from threading import Event, Thread
from time import time

from orchestrator.engine import nodes
from orchestrator.errors import DnctlError
from orchestrator.plan.plan import Placement
from orchestrator.run.directory import RunDirectory
from orchestrator.run.pause import Departure, PauseRequest, announcement, ask_to_pause
from orchestrator.run.spent import WorkerNodes, read_worker_nodes

_log = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
LOOKS_BEFORE_GROWING = 3
"""In a row that must have seen room: a node that comes up brings its resources in parts."""
IN_VAIN_S = 60.0
"""To wait for longer after a pause that came to nothing; doubles each time."""
LASTING_S = 600.0
"""After which workers that were more than those before have been worth the pause."""


def departures_of(worker_nodes: Sequence[str], leaving: Mapping[str, Departure]) -> tuple[Departure, ...]:
    """Of the nodes that go away those that workers are on; if there are any, the workers must pause at once."""
    return tuple(leaving[node] for node in sorted(set(worker_nodes) & leaving.keys()))


class Growing:
    """Decides when workers should pause to become more. One that came to nothing makes it wait, longer each time.

    It came to nothing if the next workers were no more, as when others took the room, or had to leave again soon, as
    when a machine that was announced to go came back into the cluster before it went.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._num_looks = 0
        self._paused: tuple[float, int] | None = None
        """When the workers began that were last told to pause for this, and how many they were."""
        self._grown_at: float | None = None
        """When workers began that were more than those before."""
        self._num_in_vain = 0

    def reason(self, world_size: int, *, free: int, began_at: float, now: float) -> str | None:
        """Why the workers should pause now; None if they needn't. Called at every look.

        free: further workers that there is room for. began_at: when these workers began.
        """
        self._see(world_size, began_at)
        if self._grown_at == began_at and now - began_at >= LASTING_S:
            self._num_in_vain = 0
        wanted = min(world_size + free, self._placement.max_world_size)
        rest_s = self._placement.resize_s + IN_VAIN_S * (2**self._num_in_vain - 1)
        self._num_looks = self._num_looks + 1 if wanted > world_size and now - began_at >= rest_s else 0
        if self._num_looks < LOOKS_BEFORE_GROWING:
            return None
        self._num_looks, self._paused = 0, (began_at, world_size)
        return f"room for {wanted} workers instead of {world_size}"

    def must_leave(self, world_size: int, *, began_at: float) -> None:
        """Take note that these workers must leave a node."""
        self._see(world_size, began_at)
        if self._grown_at == began_at:
            self._num_in_vain += 1

    def _see(self, world_size: int, began_at: float) -> None:
        """Note what came of the last pause, at the first sight of other workers."""
        if self._paused is None or self._paused[0] == began_at:
            return
        if world_size > self._paused[1]:
            self._grown_at = began_at
        else:
            self._num_in_vain += 1
        self._paused = None


class PauseWatch:
    """Watches the cluster from the driver and leaves a pause request for the attempt that should heed it."""

    def __init__(self, run: RunDirectory, placement: Placement, worker: Mapping[str, float]) -> None:
        """worker: the resources that each worker takes."""
        self._run = run
        self._max_world_size = placement.max_world_size
        self._growing = Growing(placement)
        self._worker = worker
        self._closing = Event()
        self._thread = Thread(target=self._follow, name="pausing", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._closing.wait(POLL_INTERVAL_S):
            try:
                self._look()
            except (DnctlError, RuntimeError, OSError) as error:  # Ray's head may be away for a moment
                _log.warning("can't look after the nodes: %s", error)

    def _look(self) -> None:
        attempt = self._run.attempt(self._run.newest_attempt()[0])
        workers = read_worker_nodes(attempt.worker_nodes)
        if workers is None or attempt.pause_request.exists():
            return
        request = self._to_leave(workers) or self._to_grow(workers)
        if request is not None and ask_to_pause(attempt.pause_request, request):
            _log.info("attempt %d shall pause: %s", attempt.number, request.reason)

    def _to_leave(self, workers: WorkerNodes) -> PauseRequest | None:
        departures = departures_of(workers.nodes, nodes.departures())
        if not departures:
            return None
        self._growing.must_leave(len(workers.nodes), began_at=workers.began_at)
        return PauseRequest(reason=announcement(departures, now=time()), departures=departures)

    def _to_grow(self, workers: WorkerNodes) -> PauseRequest | None:
        world_size = len(workers.nodes)
        free = nodes.room_for(self._worker, nodes.free_resources()) if world_size < self._max_world_size else 0
        reason = self._growing.reason(world_size, free=free, began_at=workers.began_at, now=time())
        return PauseRequest(reason=reason) if reason else None

    def close(self) -> None:
        """Watch no more."""
        self._closing.set()
        self._thread.join()
