"""From a recipe to a plan on a machine that sees the data: manifests made, everything resolved, differences refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orchestrator.data.index import Dataset, index_dataset
from orchestrator.data.storage import is_url
from orchestrator.errors import RecipeError, StorageError, UsageError
from orchestrator.plan.cluster import ClusterShape, installed_loader
from orchestrator.plan.networks import TIMM_PREFIX
from orchestrator.plan.plan import Plan
from orchestrator.plan.resolve import DatasetFacts, resolve
from orchestrator.plan.versions import installed_versions
from orchestrator.recipe.load import dump_recipe
from orchestrator.recipe.schema import Recipe
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.weights_file import read_weights_file

Progress = Callable[[int, int], None]


def make_plan(
    recipe: Recipe, shape: ClusterShape, *, before: Plan | None = None, progress: Progress | None = None
) -> Plan:
    """Index the recipe's data and resolve everything; one of timm's own models is tried out without values.

    Raises DataError, PlanError or RecipeError, and NotFoundError for weights or a model of timm's that there aren't.

    before: the plan that the run has; what was `auto` when it was made is not chosen again.
    """
    if before is not None:
        data = recipe.data.model_copy(update={"loader": before.numerics.loader})
        recipe = recipe.model_copy(update={"data": data})
    if recipe.data.root is None:
        raise RecipeError("data.root: no data set is named; add --set data.root=/path/to/imagenet")
    dataset = index_dataset(recipe.data.root, damaged=recipe.data.damaged, progress=progress)
    plan = resolve(
        recipe,
        cluster=shape,
        dataset=facts_of(dataset),
        versions=installed_versions(),
        loader_available=installed_loader(),
        weights_sha256=_weights_sha256(recipe),
    )
    plan = replace(plan, deviations=before.deviations if before else ())
    if not recipe.model.name.startswith(TIMM_PREFIX):
        return plan
    from orchestrator.train.rehearsal import rehearse  # torch and timm, which know their models, take seconds to import

    return replace(plan, notes=(*plan.notes, *rehearse(plan)))


def _weights_sha256(recipe: Recipe) -> str | None:
    weights = recipe.model.weights
    return None if weights is None else read_weights_file(Path(weights)).sha256


def facts_of(dataset: Dataset) -> DatasetFacts:
    """What a plan needs to know of a data set."""
    return DatasetFacts(
        num_train_images=dataset.train.num_samples,
        num_val_images=dataset.val.num_samples,
        num_classes=len(dataset.classes),
        fingerprint=dataset.fingerprint,
    )


def plan_on_cluster(run: RunDirectory, recipe: Recipe, shape: ClusterShape) -> Plan:
    """The plan of an attempt that begins: the client's if it planned for this machine, else one for this cluster.

    Raises UsageError if the run would go on computing something else than it began with.
    """
    before = load_plan(run)
    if before is not None and run.read_state().cluster_address is None:
        return before
    plan = make_plan(recipe, shape, before=before)
    if before is not None:
        refuse_other_numerics(run, before, plan)
    write_plan(run, plan)
    return plan


def load_plan(run: RunDirectory) -> Plan | None:
    """The run's plan; None before there is one. Raises StorageError."""
    with files.translated("read", run.plan):
        if not run.plan.exists():
            return None
        with files.open_plain(run.plan) as file:
            content = file.read()
    try:
        return Plan.from_json(content.decode(errors="replace"))
    except StorageError as error:
        raise StorageError(f"{run.plan}: {error} Restore it, or start a new run.") from error


def write_plan(run: RunDirectory, plan: Plan) -> None:
    """Fix the run's plan."""
    files.write_atomically(run.plan, plan.to_json().encode())


def write_recipe(run: RunDirectory, recipe: Recipe) -> None:
    """Keep the recipe as it was launched, its paths made absolute: workers start elsewhere."""
    if recipe.model.weights is not None:
        model = recipe.model.model_copy(update={"weights": str(Path(recipe.model.weights).absolute())})
        recipe = recipe.model_copy(update={"model": model})
    if recipe.data.root is not None and not is_url(recipe.data.root):
        data = recipe.data.model_copy(update={"root": str(Path(recipe.data.root).absolute())})
        recipe = recipe.model_copy(update={"data": data})
    files.write_atomically(run.recipe, dump_recipe(recipe).encode())


def refuse_other_numerics(run: RunDirectory, before: Plan, now: Plan) -> None:
    """Raise UsageError, with each difference, if a run would go on computing something else."""
    differences = now.numerics.differences(before.numerics)
    if differences:
        lines = [f"  {key}: now {ours!r}, the run began with {theirs!r}" for key, ours, theirs in differences]
        raise UsageError(
            f"run {run.name} can't go on with other numerics:\n" + "\n".join(lines) + "\n"
            "put them back, or launch a new run under another name"
        )
