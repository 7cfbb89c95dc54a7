"""`dnctl doctor --cluster` from the client's side: a job that looks at the nodes, and what it found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.engine.clusters import Cluster
from orchestrator.engine.short_job import answer_of
from orchestrator.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One worker of the check, each on a node of its own."""

    host: str
    device: str
    interface: str | None
    gpus: int
    clock_ahead_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What was found."""

    backend: str
    sum_bytes: int
    sum_s: float
    clock_difference_s: float
    ranks: tuple[Rank, ...]
    num_nodes: int
    gpus_in_ray: int
    faults: tuple[str, ...]
    """Why no run can begin there."""


def ask_checkup(cluster: Cluster, folder: Path, *, timeout_s: float = 180.0) -> Checkup:
    """Have a cluster's nodes looked at, for runs that would be kept in a folder. Raises ClusterError or UsageError."""
    if cluster.jobs_address is None:
        raise UsageError("Slurm gives nodes to jobs alone; every run looks at its own nodes before it begins")
    module = "orchestrator.engine.checkup_job"
    return _checkup(answer_of(cluster, module, [str(folder)], what="the look at the nodes", timeout_s=timeout_s))


def _checkup(document: dict[str, Any]) -> Checkup:
    kept = {name: document[name] for name in Checkup.__dataclass_fields__}
    ranks = tuple(Rank(**{name: rank[name] for name in Rank.__dataclass_fields__}) for rank in document["ranks"])
    return Checkup(**{**kept, "ranks": ranks, "faults": tuple(document["faults"])})
