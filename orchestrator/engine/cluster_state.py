"""What a Ray cluster has, what of it is in use, and what waits for a place and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.engine.dashboard import Dashboard, Versions
from orchestrator.errors import ClusterError

_GPU_TYPE = "accelerator_type:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Of one resource: all there is, and what is taken."""

    total: float
    used: float

    @property
    def free(self) -> float:
        """What is left."""
        return self.total - self.used


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine of a cluster."""

    address: str
    is_head: bool
    cpus: Amount
    gpus: Amount
    gpu_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Something that waits for a place."""

    run: str | None
    """The run it belongs to, if it is one of ours."""
    wants: str
    """In words."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """A Ray cluster at a moment."""

    address: str
    versions: Versions
    nodes: tuple[Node, ...]
    runs: tuple[str, ...]
    """Our runs whose drivers are there."""
    waiting: tuple[Waiting, ...]
    coming: tuple[str, ...]
    """Machines that the autoscaler is bringing up, in words."""
    failed: tuple[str, ...]
    """Machines that it couldn't bring up, or lost."""

    def gpus_by_type(self) -> dict[str, Amount]:
        """All GPUs, summed over nodes."""
        types = sorted({node.gpu_type or "GPU" for node in self.nodes if node.gpus.total})
        return {
            name: _sum([node.gpus for node in self.nodes if node.gpus.total and (node.gpu_type or "GPU") == name])
            for name in types
        }

    def cpus(self) -> Amount:
        """All CPU cores."""
        return _sum([node.cpus for node in self.nodes])


def _sum(amounts: Sequence[Amount]) -> Amount:
    return Amount(total=sum(amount.total for amount in amounts), used=sum(amount.used for amount in amounts))


def read_cluster(dashboard: Dashboard) -> ClusterState:
    """Ask a cluster how it is. Raises ClusterError."""
    versions = dashboard.versions()
    try:
        status = dashboard.get("/api/cluster_status")["data"]["clusterStatus"] or {}
        report = status.get("autoscalerReport") or {}
        nodes = _nodes(
            _rows(dashboard.get("/api/v0/nodes?detail=1")),
            (status.get("loadMetricsReport") or {}).get("usageByNode") or {},
        )
        jobs = dashboard.get("/api/jobs/")
        coming = _coming(report)
        groups = _rows(dashboard.get("/api/v0/placement_groups?detail=1"))
        return ClusterState(
            address=dashboard.address,
            versions=versions,
            nodes=nodes,
            runs=tuple(sorted(_runs(jobs).values())),
            waiting=(*_waiting_groups(groups, jobs, nodes, coming), *_waiting_drivers(jobs)),
            coming=coming,
            failed=tuple(f"{address}: {kind}" for address, kind in report.get("failedNodes") or ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ClusterError(
            f"the dashboard at {dashboard.address} ({versions}) answers in a way that this dnctl can't read: {error!r}"
        ) from error


def _rows(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = answer["data"]["result"]["result"]
    return rows


def _nodes(rows: Sequence[Mapping[str, Any]], usage: Mapping[str, Mapping[str, Any]]) -> tuple[Node, ...]:
    def amount(row: Mapping[str, Any], resource: str) -> Amount:
        used, _ = usage.get(row["node_id"], {}).get(resource, (0.0, 0.0))
        return Amount(total=row["resources_total"].get(resource, 0.0), used=used)

    nodes = [
        Node(
            address=row["node_ip"],
            is_head=row["is_head_node"],
            cpus=amount(row, "CPU"),
            gpus=amount(row, "GPU"),
            gpu_type=next(
                (name.removeprefix(_GPU_TYPE) for name in row["resources_total"] if name.startswith(_GPU_TYPE)), None
            ),
        )
        for row in rows
        if row["state"] == "ALIVE"
    ]
    return tuple(sorted(nodes, key=lambda node: (not node.is_head, node.address)))


def _runs(jobs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Our runs that are on the cluster or wait there, by their job's id in Ray."""
    return {
        job["job_id"] or job["submission_id"]: job["metadata"]["dnctl_run"]
        for job in jobs
        if job["status"] in ("PENDING", "RUNNING") and "dnctl_run" in (job.get("metadata") or {})
    }


def _waiting_drivers(jobs: Sequence[Mapping[str, Any]]) -> list[Waiting]:
    return [
        Waiting(run=(job.get("metadata") or {}).get("dnctl_run"), wants="a driver", why=job["message"] or "not started")
        for job in jobs
        if job["status"] == "PENDING"
    ]


def _waiting_groups(
    groups: Sequence[Mapping[str, Any]], jobs: Sequence[Mapping[str, Any]], nodes: Sequence[Node], coming: Sequence[str]
) -> list[Waiting]:
    runs = _runs(jobs)
    waiting = []
    for group in groups:
        if group["state"] in ("PENDING", "RESCHEDULING"):
            bundles = [bundle["unit_resources"] for bundle in group["bundles"] if not bundle["node_id"]]
            waiting.append(
                Waiting(
                    run=runs.get(group["creator_job_id"]),
                    wants=in_words(bundles),
                    why=why_it_waits(bundles, nodes, coming),
                )
            )
    return waiting


def in_words(bundles: Sequence[Mapping[str, float]]) -> str:
    """What is asked for: '4 × (1 GPU, 8 CPU)'."""
    kinds: dict[str, int] = {}
    for bundle in bundles:
        # A worker that reserves no core asks for a thousandth of one.
        amounts = [f"{amount:g} {name}" for name, amount in sorted(bundle.items(), reverse=True) if amount >= 0.01]
        kinds[", ".join(amounts) or "a place"] = kinds.get(", ".join(amounts) or "a place", 0) + 1
    return " and ".join(f"{count} × ({kind})" for kind, count in kinds.items())


def why_it_waits(bundles: Sequence[Mapping[str, float]], nodes: Sequence[Node], coming: Sequence[str]) -> str:
    """Why these bundles, each for one node, have no place: too large for ever, or others are using it."""
    reasons = []
    for resource, amounts in (
        ("GPU", [node.gpus for node in nodes]),
        ("CPU", [node.cpus for node in nodes]),
    ):
        wanted = [bundle.get(resource, 0.0) for bundle in bundles]
        largest, total = max((amount.total for amount in amounts), default=0.0), sum(amount.total for amount in amounts)
        free = sum(amount.free for amount in amounts)
        if max(wanted, default=0.0) > largest:
            reasons.append(f"no node has {max(wanted):g} {resource}s, the largest has {largest:g}")
        elif sum(wanted) > total:
            reasons.append(f"the cluster has {total:g} {resource}s in all")
        elif sum(wanted) > free:
            reasons.append(f"{free:g} of {total:g} {resource}s are free")
    reason = "; ".join(reasons) or "what is free is spread over nodes so that it doesn't fit"
    return f"{reason}; on its way: {', '.join(coming)}" if coming else reason


def _coming(report: Mapping[str, Any]) -> tuple[str, ...]:
    launches = [f"{count} × {kind}" for kind, count in (report.get("pendingLaunches") or {}).items()]
    nodes = [f"{kind} {address} ({what})" for address, kind, what in report.get("pendingNodes") or ()]
    return (*launches, *nodes)
