"""`dnctl plan`: what a launch would do, without a cluster and without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, stderr
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
    json_output: JsonOption = False,
) -> None:
    """What a launch would do here, or on the cluster named or described. Arithmetic, schedule, memory and time."""
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
    if target is not None:
        resolved = plan_for(loaded, target)
    else:
        shape = described_shape(gpus, cpus) if is_described else local_shape()
        resolved = _resolved(loaded, shape, "dali" if is_described else installed_loader())
    if probe:
        from orchestrator.plan.estimate import with_measured_rate
        from orchestrator.train.probe import measure_rate

        stderr().print("measuring, for some seconds …")
        resolved = with_measured_rate(resolved, measure_rate(resolved), local_shape())
    if json_output:
        typer.echo(resolved.to_json())
    else:
        console().print(render_plan(resolved))


def plan_for(recipe: "Recipe", target: "Cluster") -> "Plan":
    """The plan on a Ray cluster that is up, for the GPUs and cores that it has now. Raises ClusterError."""
    from orchestrator.engine.cluster_state import read_cluster
    from orchestrator.plan.cluster import ClusterShape, NodeShape

    if target.jobs_address is None:
        raise UsageError(
            "Slurm says only when a run starts which nodes it gets: describe them with --gpus TYPE:NUMBER."
        )
    state = read_cluster(target.dashboard())
    by_type = state.gpus_by_type()
    shape = ClusterShape(
        num_cpus=int(state.cpus().total),
        num_gpus=int(sum(amount.total for amount in by_type.values())),
        nodes=len(state.nodes),
        gpu_type=max(by_type, key=lambda name: by_type[name].total, default=None),
        address=target.jobs_address,
        each=tuple(NodeShape(num_cpus=int(node.cpus.total), num_gpus=int(node.gpus.total)) for node in state.nodes),
    )
    return _resolved(recipe, shape, "dali")


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
