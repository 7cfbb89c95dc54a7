"""`dnctl plan`: what a launch would do, without a cluster and without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, stderr
from orchestrator.cli.recipe import RecipeArgument, SetOption
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.plan.resolve import DatasetFacts
    from orchestrator.recipe.schema import Recipe

GpusOption = Annotated[
    str | None,
    typer.Option("--gpus", metavar="[TYPE:]NUMBER", help="Plan for a cluster with these GPUs, such as H100:8."),
]
CpusOption = Annotated[
    int | None, typer.Option("--cpus", min=1, help="Plan for a cluster with so many CPU cores.", show_default=False)
]
ProbeOption = Annotated[
    bool, typer.Option("--probe", help="Measure the network's speed here for some seconds, with made-up images.")
]


def plan(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    probe: ProbeOption = False,
    json_output: JsonOption = False,
) -> None:
    """What a launch would do here, or on the cluster described. Arithmetic, schedule, memory and time."""
    from orchestrator.cli.render_plan import render_plan
    from orchestrator.plan.cluster import described_shape, installed_loader, local_shape
    from orchestrator.plan.resolve import resolve
    from orchestrator.plan.versions import installed_versions
    from orchestrator.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    is_here = gpus is None and cpus is None
    if probe and not is_here:
        raise UsageError("--probe measures this machine; leave out --gpus and --cpus, or run it on such a machine.")
    cluster = local_shape() if is_here else described_shape(gpus, cpus)
    resolved = resolve(
        loaded,
        cluster=cluster,
        dataset=_dataset_facts(loaded),
        versions=installed_versions(),
        loader_available=installed_loader() if is_here else "dali",
    )
    if probe:
        from orchestrator.plan.estimate import with_measured_rate
        from orchestrator.train.probe import measure_rate

        stderr().print("measuring, for some seconds …")
        resolved = with_measured_rate(resolved, measure_rate(resolved), cluster)
    if json_output:
        typer.echo(resolved.to_json())
    else:
        console().print(render_plan(resolved))


def _dataset_facts(recipe: "Recipe") -> "DatasetFacts | None":
    """The size and fingerprint of the data where it can be read here; the images are indexed once, with a bar."""
    if recipe.data.root is None or not Path(recipe.data.root).is_dir():
        return None
    from orchestrator.cli.progress import progress_bar
    from orchestrator.data.index import index_dataset
    from orchestrator.plan.resolve import DatasetFacts

    with progress_bar("indexing images") as progress:
        dataset = index_dataset(recipe.data.root, damaged=recipe.data.damaged, progress=progress)
    return DatasetFacts(
        num_train_images=dataset.train.num_samples,
        num_val_images=dataset.val.num_samples,
        num_classes=len(dataset.classes),
        fingerprint=dataset.fingerprint,
    )
