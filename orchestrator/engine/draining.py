"""Telling Ray that a node goes away, with the cause; as a program, what `dnctl cluster drain` runs on the cluster.

Ray's drain takes a reason that nobody is told. So the cause is left beside it, in the key-value store of Ray's head.
"""

import json
import os
import sys
from time import time

from ray._raylet import GcsClient  # type: ignore[attr-defined]  # of Cython
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from ray.exceptions import RayError

from orchestrator.engine.short_job import answering, write_answer
from orchestrator.errors import ClusterError

LEAST_S = 10.0
"""Ray ends a node at its deadline; one that is late in going needn't go sooner for that."""
TIMEOUT_S = 5.0
_NAMESPACE = b"dnctl"
_PREEMPTION = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")


def announce(gcs_address: str, node: str, *, cause: str, deadline: float | None) -> None:
    """Let Ray drain a node: it gets no new work and is ended when idle, or at the deadline if there is one.

    deadline: in seconds since 1970. May be called again for the same node; the last deadline counts.
    Raises ClusterError if Ray can't be reached, or refuses.
    """
    until_ms = 0 if deadline is None else int(1000 * max(deadline, time() + LEAST_S))
    try:
        gcs = GcsClient(address=gcs_address)
        gcs.internal_kv_put(_key(node), json.dumps(cause).encode(), True, _NAMESPACE, timeout=TIMEOUT_S)
        is_accepted, why_not = gcs.drain_node(node, _PREEMPTION, cause, until_ms, timeout=TIMEOUT_S)
    except (RayError, RuntimeError, ValueError) as error:
        raise ClusterError(f"Ray's head at {gcs_address} can't be told that node {node} goes: {error}") from error
    if not is_accepted:
        raise ClusterError(f"Ray doesn't drain node {node}: {why_not}")


def cause_of(gcs_address: str, node: str) -> str | None:
    """Why a node goes away; None if whoever drained it didn't say."""
    try:
        said = GcsClient(address=gcs_address).internal_kv_get(_key(node), _NAMESPACE, timeout=TIMEOUT_S)
        return None if said is None else str(json.loads(said))
    except (RayError, RuntimeError, ValueError):
        return None  # a node that goes without a cause must be left all the same


def _key(node: str) -> bytes:
    return f"departure/{node}".encode()


def main() -> None:
    """Drain nodes of the cluster that this job is on. The command line: CAUSE SECONDS NODE…; SECONDS may be 'none'."""
    cause, seconds, *nodes = sys.argv[1:]
    deadline = None if seconds == "none" else time() + float(seconds)
    with answering():
        for node in nodes:
            announce(os.environ["RAY_ADDRESS"], node, cause=cause, deadline=deadline)
        write_answer({"nodes": nodes})


if __name__ == "__main__":
    main()
