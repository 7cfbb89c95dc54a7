"""What a person should know about a plan: what was assumed, what is unknown, what is wasted, and what to do."""

from collections.abc import Iterator

from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.plan import Estimate, Numerics, Placement
from orchestrator.recipe.schema import Recipe, Workers


def plan_notes(
    recipe: Recipe, cluster: ClusterShape, numerics: Numerics, placement: Placement, estimate: Estimate
) -> Iterator[str]:
    """All notes on a plan, as sentences."""
    yield from _data(recipe, numerics)
    yield from _groups(recipe, numerics, placement)
    yield from _devices(cluster, placement)
    yield from _schedule(numerics)
    yield from _memory(cluster, estimate)
    yield from _limits(recipe, estimate)


def _data(recipe: Recipe, numerics: Numerics) -> Iterator[str]:
    if numerics.data_fingerprint is None:
        where = f"{recipe.data.root} is not here" if recipe.data.root else "data.root is not set"
        yield (
            f"The data has not been read ({where}): its size is what the recipe expects, and the numerics fingerprint "
            "will change with the data's. Launching needs the data: --set data.root=FOLDER says where it is."
        )
    if "://" in (recipe.data.root or "") and recipe.data.cache_gb == 0:
        yield (
            "Every epoch reads all images over the network, one request each: data.cache_gb=SIZE keeps copies of as "
            "many shards as fit on each node's disk."
        )
    expected = recipe.data.expected
    if expected is not None:
        for what, found, should_be in (
            ("training images", numerics.num_train_images + numerics.num_held_out_images, expected.train_images),
            ("validation images", numerics.num_test_images or numerics.num_val_images, expected.val_images),
        ):
            if found != should_be:
                yield f"The data has {found:,} {what}; the recipe expects {should_be:,}."


def _groups(recipe: Recipe, numerics: Numerics, placement: Placement) -> Iterator[str]:
    groups, ranks = numerics.batch_norm_groups, placement.world_size
    idle = sum(not shares for shares in placement.group_shares)
    if idle:
        yield (
            f"{idle} of the {ranks} workers have nothing to train on, since there are {groups} batch-norm groups: take "
            f"{groups} workers, or cluster.split_groups=true, which agrees with fewer workers to rounding only."
        )
    elif ranks > groups:
        yield (
            f"{ranks} workers share {groups} batch-norm groups: a group's statistics are synchronised between the "
            "workers that hold it, in every layer. Losses agree with those of fewer workers to rounding only."
        )
    elastic = recipe.cluster.workers
    if isinstance(elastic, Workers) and elastic.max > placement.max_world_size:
        yield (
            f"At most {placement.max_world_size} of up to {elastic.max} workers are taken, one a batch-norm group: "
            "cluster.split_groups=true would let them share groups, which agrees to rounding only."
        )
    busiest, idlest = max(placement.images_per_rank), min(placement.images_per_rank)
    if groups % ranks and ranks < groups:
        shares = "/".join(str(len(shares)) for shares in placement.group_shares)
        best = max(n for n in range(1, ranks) if groups % n == 0)
        yield (
            f"{ranks} workers take {shares} of the {groups} batch-norm groups: the last ones wait while the first "
            f"compute. With {best} or {groups} workers none would wait."
        )
    elif busiest > idlest and not idle:
        yield f"The workers' parts of a step are of {idlest} to {busiest} images: some wait for the others."


def _devices(cluster: ClusterShape, placement: Placement) -> Iterator[str]:
    free_gpus = cluster.num_gpus - placement.world_size * placement.gpus_per_worker
    if free_gpus > 0:
        yield f"{free_gpus} of the cluster's {cluster.num_gpus} GPUs stay free."
    if placement.device == "cpu" and placement.world_size * placement.compute_threads > cluster.num_cpus:
        yield f"{placement.world_size} workers share {cluster.num_cpus} CPU cores and slow each other down."


def _schedule(numerics: Numerics) -> Iterator[str]:
    lost = [step for step in numerics.milestones_steps if not 0 < step < numerics.num_steps]
    if lost:
        yield (
            f"The run is so short that milestones fall on its first or last step ({', '.join(map(str, lost))} of "
            f"{numerics.num_steps})."
        )


def _memory(cluster: ClusterShape, estimate: Estimate) -> Iterator[str]:
    needed, there = estimate.memory, cluster.gpu_memory_bytes
    if needed is not None and there is not None and needed.total_bytes > there:
        yield (
            f"A worker needs more memory than a GPU has ({needed.total_bytes / 2**30:.1f} of {there / 2**30:.1f} GiB): "
            "set model.memory_efficient=true, or take more workers than groups and cluster.split_groups=true."
        )


def _limits(recipe: Recipe, estimate: Estimate) -> Iterator[str]:
    time = estimate.time
    if time is None:
        return
    for key, limit, expected, unit in (
        ("hours", recipe.limits.hours, time.total_h, "hours"),
        ("money", recipe.limits.money, time.money, "of money"),
    ):
        if limit is not None and expected is not None and expected > limit:
            yield (
                f"The run would take about {expected:.3g} {unit} and is stopped at limits.{key}={limit:g}, about "
                f"{limit / expected:.0%} of the way."
            )
