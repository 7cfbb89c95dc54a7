"""Sending a node away by hand, on a cluster of which only the dashboard is reached: a job there tells Ray."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.engine.clusters import Cluster
from orchestrator.engine.dashboard import Dashboard
from orchestrator.engine.short_job import answer_of
from orchestrator.errors import ClusterError, NotFoundError, UsageError

CAUSE = "dnctl cluster drain"
TOLD_WITHIN_S = 90.0
MIN_PREFIX = 6
"""Of a node's id, so that no short word is taken for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedNode:
    """A node of a cluster and what it may be called."""

    node: str
    """Ray's id."""
    host: str
    address: str
    is_head: bool

    def is_called(self, name: str) -> bool:
        """Whether that is its id, the beginning of that, its host's name, long or short, or its address."""
        names = (self.node, self.host, self.host.partition(".")[0], self.address)
        return name in names or (len(name) >= MIN_PREFIX and self.node.startswith(name))

    def __str__(self) -> str:
        label = self.host if self.host == self.address else f"{self.host} ({self.address})"
        return f"{label}, the head" if self.is_head else label


def send_away(cluster: Cluster, name: str, *, deadline_s: float | None) -> Sequence[NamedNode]:
    """Let Ray drain what is called so: one node, or all nodes of one machine. Returns them.

    deadline_s: seconds until it ends whatever is still there; None: it goes when its work has left.
    Raises NotFoundError, UsageError for the head, ClusterError.
    """
    dashboard = cluster.dashboard()
    nodes = living_nodes(dashboard)
    named = [node for node in nodes if node.is_called(name)]
    if not named:
        there = "; ".join(f"{node}: {node.node[:12]}" for node in nodes) or "none"
        raise NotFoundError(f"the cluster at {dashboard.address} has no node {name!r}; its nodes are {there}")
    if len({node.host for node in named}) > 1:
        raise UsageError(f"{name!r} may be {' or '.join(str(node) for node in named)}: give more of its id")
    if any(node.is_head for node in named):
        raise UsageError(
            f"{named[0]}, can't be sent away, since the cluster ends with it: `dnctl stop RUN` saves a checkpoint, "
            "then `dnctl cluster down` ends the cluster"
        )
    seconds = "none" if deadline_s is None else f"{deadline_s:g}"
    arguments = [CAUSE, seconds, *(node.node for node in named)]
    answer_of(cluster, "orchestrator.engine.draining", arguments, what="telling Ray", timeout_s=TOLD_WITHIN_S)
    return named


def living_nodes(dashboard: Dashboard) -> Sequence[NamedNode]:
    """The nodes of a cluster, the head first. Raises ClusterError."""
    answer = dashboard.get("/nodes?view=summary")
    try:
        rows = [row["raylet"] for row in answer["data"]["summary"]]
        nodes = [
            NamedNode(
                node=row["nodeId"],
                host=row["nodeManagerHostname"],
                address=row["nodeManagerAddress"],
                is_head=row["isHeadNode"],
            )
            for row in rows
            if row["state"] == "ALIVE"
        ]
    except (KeyError, TypeError) as error:
        raise ClusterError(
            f"the dashboard at {dashboard.address} names its nodes in a way that this dnctl can't read: {error!r}"
        ) from error
    return sorted(nodes, key=lambda node: (not node.is_head, node.host, node.node))
