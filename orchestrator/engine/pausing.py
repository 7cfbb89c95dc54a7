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
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.spent import read_worker_nodes

_log = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
LOOKS_BEFORE_GROWING = 3
"""In a row that must have seen room: a node that comes up brings its resources in parts."""


def reason_to_leave(worker_nodes: Sequence[str], leaving: Mapping[str, float | None], *, now: float) -> str | None:
    """Why the workers on these nodes must pause at once; None if all of their nodes stay."""
    affected = sorted(set(worker_nodes) & leaving.keys())
    if not affected:
        return None
    known = [deadline for node in affected if (deadline := leaving[node]) is not None]
    when = f" in {max(min(known) - now, 0):.0f} s" if known else ""
    what = f"node {affected[0][:12]} goes" if len(affected) == 1 else f"{len(affected)} nodes go"
    return f"preemption announced: {what} away{when}"


def reason_to_grow(world_size: int, placement: Placement, *, free: int, since_s: float) -> str | None:
    """Why the workers should pause to become more; None if they needn't.

    free: further workers that there is room for. since_s: seconds since these workers began.
    """
    wanted = min(world_size + free, placement.max_world_size)
    if wanted <= world_size or since_s < placement.resize_s:
        return None
    return f"room for {wanted} workers instead of {world_size}"


class PauseWatch:
    """Watches the cluster from the driver and leaves a pause request for the attempt that should heed it."""

    def __init__(self, run: RunDirectory, placement: Placement, worker: Mapping[str, float]) -> None:
        """worker: the resources that each worker takes."""
        self._run = run
        self._placement = placement
        self._worker = worker
        self._seen_room = 0
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
        reason = reason_to_leave(workers.nodes, nodes.draining_nodes(), now=time()) or self._reason_to_grow(
            len(workers.nodes), workers.began_at
        )
        if reason is not None and files.create_exclusively(
            attempt.pause_request, files.json_bytes({"reason": reason, "asked_at": time()})
        ):
            _log.info("attempt %d shall pause: %s", attempt.number, reason)

    def _reason_to_grow(self, world_size: int, began_at: float) -> str | None:
        if world_size >= self._placement.max_world_size:
            return None
        free = nodes.room_for(self._worker, nodes.free_resources())
        reason = reason_to_grow(world_size, self._placement, free=free, since_s=time() - began_at)
        self._seen_room = self._seen_room + 1 if reason else 0
        return reason if self._seen_room >= LOOKS_BEFORE_GROWING else None

    def close(self) -> None:
        """Watch no more."""
        self._closing.set()
        self._thread.join()
