"""Which workers a run has on a cluster, and what each computes."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.groups import GroupShare, group_shares, split_evenly
from orchestrator.plan.plan import Placement, Plan
from orchestrator.recipe.schema import Recipe, Workers


def at_world_size(plan: Plan, world_size: int) -> Plan:
    """The same plan on another number of workers, each with the same means."""
    numerics, placement = plan.numerics, plan.placement
    shares = _shares(numerics.batch_norm_groups, world_size, split_groups=placement.split_groups)
    images = _images(shares, numerics.global_batch_size, numerics.batch_norm_groups)
    placement = replace(placement, world_size=world_size, group_shares=shares, images_per_rank=images)
    return replace(plan, placement=placement)


def resolve_placement(recipe: Recipe, *, cluster: ClusterShape, versions: Mapping[str, str]) -> Placement:
    """The workers of a run; needs a recipe and a cluster without `placement_faults`."""
    workers, gpus, cpus = _workers(recipe, cluster), _gpus(recipe, cluster), _cpus(recipe, cluster)
    train = recipe.train
    shares = _shares(train.batch_norm_groups, workers, split_groups=recipe.cluster.split_groups)
    elastic = recipe.cluster.workers if isinstance(recipe.cluster.workers, Workers) else None
    return Placement(
        world_size=workers,
        min_world_size=elastic.min if elastic else workers,
        max_world_size=_useful(elastic.max, recipe) if elastic else workers,
        resize_s=60 * recipe.cluster.resize_minutes,
        split_groups=recipe.cluster.split_groups,
        device="cuda" if gpus else "cpu",
        gpus_per_worker=gpus,
        cpus_per_worker=cpus,
        compute_threads=_compute_threads(recipe, cluster),
        group_shares=shares,
        images_per_rank=_images(shares, train.global_batch_size, train.batch_norm_groups),
        versions=dict(versions),
    )


def _shares(num_groups: int, world_size: int, *, split_groups: bool) -> tuple[tuple[GroupShare, ...], ...]:
    """What each rank computes; nothing for those beyond the groups, unless groups are split."""
    busy = world_size if split_groups else min(world_size, num_groups)
    return tuple(
        group_shares(num_groups=num_groups, world_size=busy, rank=rank) if rank < busy else ()
        for rank in range(world_size)
    )


def _images(shares: tuple[tuple[GroupShare, ...], ...], batch_size: int, num_groups: int) -> tuple[int, ...]:
    return tuple(_num_images(of_rank, batch_size, num_groups) for of_rank in shares)


def placement_faults(recipe: Recipe, cluster: ClusterShape) -> Iterator[str]:
    """What the recipe asks for and the cluster never has."""
    workers, gpus, cpus = _workers(recipe, cluster), _gpus(recipe, cluster), _cpus(recipe, cluster)
    if gpus and not cluster.num_gpus:
        yield (
            f"{recipe.where('cluster.gpus_per_worker')}: found {gpus}, but the cluster has no GPU ({cluster}); "
            "allowed: 0 or auto"
        )
    elif workers * gpus > cluster.num_gpus:
        yield (
            f"{recipe.where('cluster.workers')}: found {workers} workers with a GPU each, but the cluster never has "
            f"more than {cluster.num_gpus} ({cluster}); allowed: at most {cluster.num_gpus}, or auto"
        )
    room = cluster.room_for(cpus=cpus, gpus=gpus)
    if workers * cpus > cluster.num_cpus:
        yield (
            f"{recipe.where('cluster.cpus_per_worker')}: found {cpus} CPU cores a worker, {workers * cpus} in all, but "
            f"the cluster never has more than {cluster.num_cpus} ({cluster}); "
            f"allowed: at most {cluster.num_cpus // workers}, or auto"
        )
    elif workers * gpus <= cluster.num_gpus and room < workers:
        each = f"{cpus} CPU cores and a GPU" if gpus else f"{cpus} CPU cores"
        yield (
            f"{recipe.where('cluster.cpus_per_worker')}: found {workers} workers of {each} each, but on the nodes of "
            f"the cluster ({cluster}) there never is room for more than {room}; allowed: at most "
            f"{_cpus_that_fit(workers, gpus, cluster)}, or auto"
        )


def _workers(recipe: Recipe, cluster: ClusterShape) -> int:
    wanted = recipe.cluster.workers
    if isinstance(wanted, int):
        return wanted
    cpus, gpus = recipe.cluster.cpus_per_worker, _gpus(recipe, cluster)
    if cpus == "auto" or not (cpus or gpus):
        devices = cluster.num_gpus if gpus else cluster.num_cpus
    else:
        devices = cluster.room_for(cpus=cpus, gpus=gpus)
    if isinstance(wanted, Workers):
        return max(wanted.min, min(devices, _useful(wanted.max, recipe)))
    return max(1, min(devices, recipe.train.batch_norm_groups))


def _useful(workers: int, recipe: Recipe) -> int:
    """An elastic run takes no worker that would have nothing to compute, unless its least number says so."""
    elastic = recipe.cluster.workers
    least = elastic.min if isinstance(elastic, Workers) else 1
    return workers if recipe.cluster.split_groups else max(least, min(workers, recipe.train.batch_norm_groups))


def _gpus(recipe: Recipe, cluster: ClusterShape) -> int:
    gpus = recipe.cluster.gpus_per_worker
    return min(1, cluster.num_gpus) if gpus == "auto" else gpus


def _cpus(recipe: Recipe, cluster: ClusterShape) -> int:
    cpus = recipe.cluster.cpus_per_worker
    if cpus != "auto":
        return cpus
    return _cpus_that_fit(_workers(recipe, cluster), _gpus(recipe, cluster), cluster)


def _cpus_that_fit(workers: int, gpus: int, cluster: ClusterShape) -> int:
    """The most CPU cores that each worker can have for all to find room, each on one node."""
    largest = max((node.num_cpus for node in cluster.each), default=cluster.num_cpus)
    fair = min(cluster.num_cpus // workers, largest)
    return next((cpus for cpus in range(fair, 0, -1) if cluster.room_for(cpus=cpus, gpus=gpus) >= workers), 0)


def _compute_threads(recipe: Recipe, cluster: ClusterShape) -> int:
    """Sums inside an operation depend on its threads, so by default their number doesn't depend on that of workers."""
    cpus = _cpus(recipe, cluster)
    if recipe.cluster.cpus_per_worker == "auto" and not _gpus(recipe, cluster) and cpus:
        cpus = min(cpus, cluster.num_cpus // recipe.train.batch_norm_groups)
    return max(1, cpus)


def _num_images(shares: tuple[GroupShare, ...], batch_size: int, num_groups: int) -> int:
    groups = split_evenly(batch_size, num_groups)
    return sum(len(split_evenly(len(groups[share.group]), share.num_parts)[share.part]) for share in shares)
