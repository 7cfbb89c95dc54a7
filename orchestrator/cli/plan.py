"""`dnctl plan`: what a launch would do, without a cluster and without torch."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.forecast import (
    REPLACEMENT_MINUTES,
    LikeOption,
    MtbfOption,
    NodesOption,
    NoticeOption,
    PriceOption,
    Question,
    ReplacementOption,
    answer,
    measured_of,
    refuse_without_mtbf,
)
from orchestrator.cli.output import JsonOption, console, print_json, stderr
from orchestrator.cli.recipe import RecipeArgument, SetOption
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from typing import Literal

    from orchestrator.engine.clusters import Cluster
    from orchestrator.plan.cluster import ClusterShape
    from orchestrator.plan.plan import Plan
    from orchestrator.plan.resolve import DatasetFacts
    from orchestrator.recipe.schema import Recipe

GpusOption = Annotated[
    str | None,
    typer.Option("--gpus", metavar="[TYPE:]NUMBER", help="Plan for a cluster with these GPUs, such as H100:8."),
]
CpusOption = Annotated[
    int | None, typer.Option("--cpus", min=1, help="Plan for a cluster with so many CPU cores.", show_default=False)
]
PlanClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", metavar="CLUSTER", help="Plan for a cluster that is up: a profile or an address."),
]
ProbeOption = Annotated[
    bool, typer.Option("--probe", help="Measure the network's speed here for some seconds, with made-up images.")
]


def plan(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    cluster: PlanClusterOption = None,
    probe: ProbeOption = False,
    mtbf_hours: MtbfOption = None,
    notice_s: NoticeOption = None,
    nodes: NodesOption = None,
    replace_minutes: ReplacementOption = None,
    price_per_hour: PriceOption = None,
    like: LikeOption = None,
    json_output: JsonOption = False,
) -> None:
    """What a launch would do here, or on the cluster named or described. Arithmetic, schedule, memory and time.

    With --mtbf-hours also how long it takes where nodes fail, over many drawn histories, and the best time between
    checkpoints.
    """
    from orchestrator.cli.render_plan import render_plan
    from orchestrator.engine.clusters import named_cluster
    from orchestrator.plan.cluster import described_shape, installed_loader, local_shape
    from orchestrator.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    is_described = gpus is not None or cpus is not None
    target = named_cluster(cluster) if cluster is not None else None
    if target is not None and is_described:
        raise UsageError("--cluster names a cluster, --gpus and --cpus describe one: give the one or the others.")
    if probe and (is_described or target is not None):
        raise UsageError(
            "--probe measures this machine; leave out --cluster, --gpus and --cpus, or run it on such a machine."
        )
    if mtbf_hours is None:
        refuse_without_mtbf(
            notice_s=notice_s, nodes=nodes, replace_minutes=replace_minutes, price_per_hour=price_per_hour, like=like
        )
    is_here = target is None and not is_described
    described = described_shape(gpus, cpus) if is_described else local_shape()
    shape = shape_of(target) if target is not None else described
    resolved = _resolved(loaded, shape, installed_loader() if is_here else "dali")
    if probe:
        from orchestrator.plan.estimate import with_measured_rate
        from orchestrator.train.probe import measure_rate

        stderr().print("measuring, for some seconds …")
        resolved = with_measured_rate(resolved, measure_rate(resolved), local_shape())
    forecast = None
    if mtbf_hours is not None:
        num_nodes = nodes or _num_nodes(resolved, shape)
        per_worker = resolved.execution.price_per_worker_hour
        if price_per_hour is None and per_worker is not None:
            price_per_hour = per_worker * resolved.placement.world_size / num_nodes
        question = Question(
            mtbf_hours=mtbf_hours,
            notice_s=notice_s or 0.0,
            num_nodes=num_nodes,
            replacement_s=60 * (REPLACEMENT_MINUTES if replace_minutes is None else replace_minutes),
            price_per_hour=price_per_hour,
        )
        forecast = answer(resolved, question, measured_of(like, resolved) if like is not None else None)
    if not json_output:
        console().print(render_plan(resolved, forecast=tuple(forecast.rows()) if forecast is not None else ()))
    elif forecast is None:
        typer.echo(resolved.to_json())
    else:
        print_json({**json.loads(resolved.to_json()), "forecast": forecast.to_json()})


def _num_nodes(plan: "Plan", shape: "ClusterShape") -> int:
    """Of a plan's run: those of a cluster that is up, otherwise as many as its GPUs would be on."""
    from orchestrator.plan.forecast_inputs import GPUS_PER_NODE

    gpus = plan.placement.world_size * plan.placement.gpus_per_worker
    return shape.nodes if shape.nodes > 1 else max(math.ceil(gpus / GPUS_PER_NODE), 1)


def plan_for(recipe: "Recipe", target: "Cluster") -> "Plan":
    """The plan on a Ray cluster that is up, for what it has now. Raises ClusterError."""
    return _resolved(recipe, shape_of(target), "dali")


def shape_of(target: "Cluster") -> "ClusterShape":
    """The GPUs and cores that a Ray cluster which is up has now. Raises ClusterError."""
    from orchestrator.engine.cluster_state import read_cluster
    from orchestrator.plan.cluster import ClusterShape, NodeShape

    if target.jobs_address is None:
        raise UsageError(
            "Slurm says only when a run starts which nodes it gets: describe them with --gpus TYPE:NUMBER."
        )
    state = read_cluster(target.dashboard())
    by_type = state.gpus_by_type()
    return ClusterShape(
        num_cpus=int(state.cpus().total),
        num_gpus=int(sum(amount.total for amount in by_type.values())),
        nodes=len(state.nodes),
        gpu_type=max(by_type, key=lambda name: by_type[name].total, default=None),
        address=target.jobs_address,
        each=tuple(NodeShape(num_cpus=int(node.cpus.total), num_gpus=int(node.gpus.total)) for node in state.nodes),
    )


def _resolved(recipe: "Recipe", shape: "ClusterShape", loader: "Literal['dali', 'pytorch']") -> "Plan":
    from orchestrator.plan.resolve import resolve
    from orchestrator.plan.versions import installed_versions

    return resolve(
        recipe,
        cluster=shape,
        dataset=_dataset_facts(recipe),
        versions=installed_versions(),
        loader_available=loader,
    )


def _dataset_facts(recipe: "Recipe") -> "DatasetFacts | None":
    """The size and fingerprint of the data where it can be read here; the images are indexed once, with a bar."""
    root = recipe.data.root
    if root is None or ("://" not in root and not Path(root).is_dir()):
        return None
    from orchestrator.cli.progress import progress_bar
    from orchestrator.data.index import index_dataset
    from orchestrator.plan.resolve import DatasetFacts

    with progress_bar("indexing images") as progress:
        dataset = index_dataset(root, damaged=recipe.data.damaged, progress=progress)
    return DatasetFacts(
        num_train_images=dataset.train.num_samples,
        num_val_images=dataset.val.num_samples,
        num_classes=len(dataset.classes),
        fingerprint=dataset.fingerprint,
    )
