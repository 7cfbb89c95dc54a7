"""What Ray knows of its nodes: what they have, what is free, and which are about to go away.

Ray has no public call for the nodes that are being drained, nor for what is free on each node, nor for the count that
Ray Train places workers by. They are read here and nowhere else, in the way that Ray Train itself does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray._private.state import state as gcs
from ray._raylet import PlacementGroupID
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from orchestrator.engine import draining
from orchestrator.errors import ClusterError
from orchestrator.plan.cluster import ClusterShape, NodeShape
from orchestrator.run.pause import Departure

MANY_NODES = 1024
"""Of one kind, where the autoscaler has no limit."""
COUNT_TIMEOUT_S = 60.0


def cluster_shape() -> ClusterShape:
    """The most that the connected cluster ever has: what is there, or what its autoscaler may bring it to."""
    resources: dict[str, Any] = ray.cluster_resources()
    most: dict[str, Any] = gcs.get_max_resources_from_cluster_config() or {}
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpu_types = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
    return ClusterShape(
        num_cpus=int(max(resources.get("CPU", 0), most.get("CPU", 0))),
        num_gpus=int(max(resources.get("GPU", 0), most.get("GPU", 0))),
        nodes=len(alive),
        gpu_type=gpu_types[0] if gpu_types else None,
        address=ray.get_runtime_context().gcs_address,
        each=tuple(_shape(node) for node in (_autoscaled() or alive)),
    )


def _autoscaled() -> Sequence[Mapping[str, float]]:
    """What each node has that the autoscaler may bring up; nothing if there is none."""
    config = gcs.get_cluster_config()
    groups = config.node_group_configs if config is not None else ()
    return [
        dict(group.resources)
        for group in groups
        for _ in range(MANY_NODES if group.max_count < 0 else min(group.max_count, MANY_NODES))
    ]


def _shape(node: Mapping[str, float]) -> NodeShape:
    return NodeShape(num_cpus=int(node.get("CPU", 0)), num_gpus=int(node.get("GPU", 0)))


def draining_nodes() -> Mapping[str, float | None]:
    """Nodes that will go away: id to when, in seconds since 1970; None where that wasn't said."""
    deadlines_ms: dict[str, int] = gcs.get_draining_nodes()
    return {node: deadline_ms / 1000 if deadline_ms else None for node, deadline_ms in deadlines_ms.items()}


def departures() -> Mapping[str, Departure]:
    """The nodes that will go away, by id, with what is known of how."""
    leaving = draining_nodes()
    if not leaving:
        return {}
    gcs_address = ray.get_runtime_context().gcs_address
    return {
        node["NodeID"]: Departure(
            node=node["NodeID"],
            host=node["NodeManagerHostname"],
            address=node["NodeManagerAddress"],
            deadline=leaving[node["NodeID"]],
            cause=draining.cause_of(gcs_address, node["NodeID"]),
        )
        for node in ray.nodes()
        if node["NodeID"] in leaving
    }


def free_resources() -> Mapping[str, Mapping[str, float]]:
    """By node that stays: what is free there."""
    leaving = draining_nodes()
    free: dict[str, dict[str, float]] = gcs.available_resources_per_node()
    return {node: resources for node, resources in free.items() if node not in leaving}


def reservation_of(trainer: DataParallelTrainer) -> str:
    """The name under which Ray Train reserves room for the workers of a trainer."""
    return f"train-{trainer.train_run_context.run_id}"


def count_anew(*, gone: str | None) -> None:
    """Let Ray Train's count of nodes be that of this moment. Raises ClusterError.

    By itself it counts every 20 s, and would start too few workers just after a node came. It counts in an actor on the
    node of the first who asks, and can't do without: asked from the driver, that is the head and no node that may go.
    gone: a reservation whose controller has ended or died; Ray Train would keep the room for 180 s more.
    """
    coordinator = get_or_create_autoscaling_coordinator()
    try:
        if gone is not None:
            ray.get(coordinator.cancel_request.remote(gone), timeout=COUNT_TIMEOUT_S)
        ray.get(coordinator.get_reserved_resources.remote("", recompute=True), timeout=COUNT_TIMEOUT_S)
    except (GetTimeoutError, RayActorError) as error:
        raise ClusterError(f"Ray doesn't count its nodes: {error}; is its head overloaded?") from error


def has_placed_workers() -> bool:
    """Whether Ray has found places for a worker group of this process's job."""
    return any(state == "CREATED" for state in _own_placement_groups().values())


def give_places_back() -> None:
    """Let go of the places of a worker group whose controller has died, or they would be taken for as long as this job.

    Ray Train has an actor that does so. It doesn't know of a group that was just being started, and fails where several
    clusters are up on its node (Ray 2.60).
    """
    for name, state in _own_placement_groups().items():
        if state != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def _own_placement_groups() -> Mapping[str, str]:
    """The state of each placement group of this process's job, by its id, which ends in the job's."""
    job_id = ray.get_runtime_context().get_job_id()
    return {name: group["state"] for name, group in placement_group_table().items() if name.endswith(job_id)}


def has_other_work_here() -> bool:
    """Whether another job than this process's has workers placed on this process's node."""
    context = ray.get_runtime_context()
    job_id, node = context.get_job_id(), context.get_node_id()
    return any(
        not name.endswith(job_id) and group["state"] == "CREATED" and node in group["bundles_to_node_id"].values()
        for name, group in placement_group_table().items()
    )


def room_for(worker: Mapping[str, float], free: Mapping[str, Mapping[str, float]]) -> int:
    """How many workers, each with such resources, fit into what is free."""
    needed = {name: amount for name, amount in worker.items() if amount > 0}
    return sum(
        min((int(resources.get(name, 0.0) / amount) for name, amount in needed.items()), default=0)
        for resources in free.values()
    )
