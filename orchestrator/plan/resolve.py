"""From a recipe, a cluster and a data set to a plan: every `auto` is decided here, once, and every number derived.

What can't work is reported together, in one PlanError.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from orchestrator.errors import PlanError
from orchestrator.plan.block_choice import choose_block, missing_compiler
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.estimate import estimate, one_pass_fits
from orchestrator.plan.network_choice import architecture_of, model_faults, model_plan
from orchestrator.plan.notes import plan_notes
from orchestrator.plan.placement import placement_faults, resolve_placement
from orchestrator.plan.plan import (
    ColorPlan,
    EvalTransformPlan,
    Execution,
    Numerics,
    OptimizerPlan,
    Placement,
    Plan,
    TrainTransformPlan,
)
from orchestrator.recipe.checks import contradictions
from orchestrator.recipe.schema import Recipe

PREFETCH = 2
"""Micro-batches that a loader prepares ahead; a deeper queue made no difference where files are read from a disk."""
REMOTE_PREFETCH = 4
"""The same for data in an object store, whose answers take tens of milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """What a plan must know of a data set; fingerprint None for one that has not been read."""

    num_train_images: int
    """Of the folder train/, likewise the next of val/."""
    num_val_images: int
    num_classes: int
    fingerprint: str | None


def resolve(
    recipe: Recipe,
    *,
    cluster: ClusterShape,
    dataset: DatasetFacts | None,
    versions: Mapping[str, str],
    loader_available: Literal["dali", "pytorch"],
    weights_sha256: str | None = None,
) -> Plan:
    """The plan of a run of `recipe` on `cluster`.

    dataset: None if the data can't be read here; then the size that the recipe expects is taken.
    loader_available: the faster loader that the cluster's nodes have.
    weights_sha256: of the file that model.weights names; None without one, or where it can't be read here.
    Raises PlanError with everything that can't work.
    """
    facts = dataset or _expected(recipe)
    faults = [*recipe_faults(recipe), *placement_faults(recipe, cluster), *_data_faults(recipe, facts)]
    if recipe.data.loader == "dali" and loader_available != "dali":
        faults.append(f"{recipe.where('data.loader')}: DALI is not installed; install it, or set it to auto or pytorch")
    if recipe.data.decoder == "mixed" and not _can_decode_on_gpu(recipe, cluster, loader_available):
        faults.append(
            f"{recipe.where('data.decoder')}: decoding on a GPU needs DALI and workers with GPUs; set it to auto or cpu"
        )
    if faults or facts is None:
        raise _error(faults)
    placement = resolve_placement(recipe, cluster=cluster, versions=versions)
    if fault := missing_compiler(recipe.model.block, versions=versions):
        raise PlanError(f"{recipe.where('model.block')}: {fault}")
    numerics = _numerics(recipe, facts, placement, cluster.gpu_type, loader_available, weights_sha256)
    execution = resolve_execution(recipe, numerics, placement)
    if one_pass_fits(numerics, execution, placement, cluster):
        execution = replace(execution, groups_in_one_pass=True)
    estimated = estimate(numerics, execution, placement, cluster)
    return Plan(
        numerics=numerics,
        execution=execution,
        placement=placement,
        learning_rates=numerics.schedule.segments(numerics.num_steps),
        estimate=estimated,
        notes=tuple(plan_notes(recipe, cluster, numerics, placement, estimated)),
    )


def resolve_again(before: Plan, recipe: Recipe) -> Plan:
    """A run's plan by a changed recipe, on the data and the placement that it has. Raises PlanError."""
    was = before.numerics
    check_recipe(recipe)
    facts = DatasetFacts(
        num_train_images=was.num_train_images + was.num_held_out_images,
        num_val_images=was.num_test_images or was.num_val_images,
        num_classes=was.num_classes,
        fingerprint=was.data_fingerprint,
    )
    chosen = recipe.data.model_copy(update={"loader": was.loader})
    recipe = recipe.model_copy(update={"data": chosen})
    if recipe.model.block == "auto":
        model = recipe.model.model_copy(update={"block": was.model.block})
        recipe = recipe.model_copy(update={"model": model})
    numerics = _numerics(recipe, facts, before.placement, None, was.loader, was.model.weights_sha256)
    execution = resolve_execution(recipe, numerics, before.placement)
    return replace(
        before,
        numerics=replace(numerics, decoder=was.decoder),
        execution=replace(execution, groups_in_one_pass=before.execution.groups_in_one_pass),
        learning_rates=numerics.schedule.segments(numerics.num_steps),
    )


def check_recipe(recipe: Recipe) -> None:
    """Raise PlanError with everything in the recipe that can't work on any cluster."""
    faults = list(recipe_faults(recipe))
    if faults:
        raise _error(faults)


def recipe_faults(recipe: Recipe) -> Iterator[str]:
    """What can't work on any cluster."""
    for contradiction in contradictions(recipe):
        yield f"{recipe.where(contradiction.keys[0])}: {contradiction.message}"
    yield from model_faults(recipe)


def resolve_execution(recipe: Recipe, numerics: Numerics, placement: Placement) -> Execution:
    """How the run is carried out on this placement."""
    every_epoch = numerics.steps_per_epoch
    threads = recipe.data.num_threads
    return Execution(
        log_every_steps=recipe.train.log_every_steps,
        eval_every_epochs=recipe.eval.every_epochs,
        eval_batch_size=recipe.eval.batch_size,
        evaluation_steps=_every(recipe.eval.every_epochs * every_epoch, numerics.num_steps),
        checkpoint_every_epochs=recipe.checkpoint.every_epochs,
        checkpoint_every_minutes=recipe.checkpoint.every_minutes,
        mtbf_hours=recipe.checkpoint.mtbf_hours,
        on_save_failure=recipe.checkpoint.on_failure,
        checkpoint_steps=_every(recipe.checkpoint.every_epochs * every_epoch, numerics.num_steps),
        keep_last=recipe.checkpoint.keep_last,
        keep_best=recipe.checkpoint.keep_best,
        test_weights=recipe.eval.test,
        weights=None if recipe.model.weights is None else str(Path(recipe.model.weights).absolute()),
        memory_efficient=recipe.model.memory_efficient,
        groups_in_one_pass=False,
        loader_threads=max(1, placement.cpus_per_worker) if threads == "auto" else threads,
        prefetch=_prefetch(recipe),
        cache_dir=recipe.data.cache_dir,
        cache_bytes=round(recipe.data.cache_gb * 1e9),
        max_failures=recipe.cluster.max_failures,
        hang_s=60 * recipe.cluster.hang_minutes,
        guard_max_tries=recipe.guard.max_tries,
        max_hours=recipe.limits.hours,
        max_money=recipe.limits.money,
        price_per_worker_hour=recipe.cluster.price_per_worker_hour,
        cuda_graphs=recipe.train.cuda_graphs == "auto" and placement.device == "cuda" and not placement.split_groups,
    )


def _numerics(
    recipe: Recipe,
    facts: DatasetFacts,
    placement: Placement,
    gpu_type: str | None,
    loader: Literal["dali", "pytorch"],
    weights_sha256: str | None,
) -> Numerics:
    data, train = recipe.data, recipe.train
    loader = loader if data.loader == "auto" else data.loader
    num_train_images = facts.num_train_images - data.holdout
    steps_per_epoch = math.ceil(num_train_images / train.global_batch_size)
    num_steps = steps_per_epoch * train.epochs
    block = choose_block(
        recipe.model.block,
        architecture_of(recipe.model),
        device=placement.device,
        gpu_type=gpu_type,
        precision=train.precision,
        versions=placement.versions,
    )
    return Numerics(
        seed=recipe.seed,
        data_fingerprint=facts.fingerprint,
        num_train_images=num_train_images,
        num_val_images=data.holdout or facts.num_val_images,
        num_held_out_images=data.holdout,
        num_test_images=facts.num_val_images if data.holdout else 0,
        num_classes=recipe.model.num_classes or facts.num_classes,
        loader=loader,
        decoder=_decoder(recipe, loader, placement),
        train_transform=_train_transform(recipe),
        eval_transform=EvalTransformPlan(**data.eval.model_dump()),
        mean=data.mean,
        std=data.std,
        model=model_plan(recipe.model, block, weights_sha256),
        epochs=train.epochs,
        global_batch_size=train.global_batch_size,
        batch_norm_groups=train.batch_norm_groups,
        steps_per_epoch=steps_per_epoch,
        last_batch_size=num_train_images - (steps_per_epoch - 1) * train.global_batch_size,
        num_steps=num_steps,
        precision=train.precision,
        channels_last=train.channels_last,
        deterministic=train.deterministic,
        optimizer=OptimizerPlan(**train.optimizer.model_dump()),
        milestones_steps=_milestones(train.schedule.milestones, steps_per_epoch, num_steps),
        gamma=train.schedule.gamma,
        warmup_steps=round(train.schedule.warmup_epochs * steps_per_epoch),
        label_smoothing=train.label_smoothing,
        clip_grad_norm=train.clip_grad_norm,
        guard_policy=recipe.guard.policy,
        guard_spike=recipe.guard.spike,
    )


def _can_decode_on_gpu(recipe: Recipe, cluster: ClusterShape, loader_available: str) -> bool:
    has_gpus = cluster.num_gpus > 0 and recipe.cluster.gpus_per_worker != 0
    return has_gpus and loader_available == "dali" and recipe.data.loader != "pytorch"


def _decoder(recipe: Recipe, loader: str, placement: Placement) -> Literal["cpu", "mixed"]:
    can_use_gpu = loader == "dali" and placement.device == "cuda"
    return "mixed" if can_use_gpu and recipe.data.decoder != "cpu" else "cpu"


def _prefetch(recipe: Recipe) -> int:
    if recipe.data.prefetch != "auto":
        return recipe.data.prefetch
    return REMOTE_PREFETCH if "://" in (recipe.data.root or "") else PREFETCH


def _train_transform(recipe: Recipe) -> TrainTransformPlan:
    train, mean = recipe.data.train, recipe.data.mean
    red, green, blue = (min(255, round(255 * value)) for value in mean)
    return TrainTransformPlan(
        image_size=train.image_size,
        crop=train.crop,
        scale=train.scale,
        ratio=train.ratio,
        interpolation=train.interpolation,
        padding=train.padding,
        fill=(red, green, blue),
        mirror=train.mirror,
        color=None if train.color is None else ColorPlan(**train.color.model_dump()),
    )


def _milestones(milestones: Sequence[float], steps_per_epoch: int, num_steps: int) -> tuple[int, ...]:
    """Milestones in steps: whole numbers are epochs, others are fractions of the run, to the nearest step."""
    return tuple(
        milestone * steps_per_epoch if isinstance(milestone, int) else round(milestone * num_steps)
        for milestone in milestones
    )


def _every(interval: int, num_steps: int) -> tuple[int, ...]:
    """Multiples of the interval within the run, and the run's end."""
    return (*range(interval, num_steps, interval), num_steps)


def _expected(recipe: Recipe) -> DatasetFacts | None:
    expected = recipe.data.expected
    if expected is None:
        return None
    return DatasetFacts(
        num_train_images=expected.train_images,
        num_val_images=expected.val_images,
        num_classes=expected.classes,
        fingerprint=None,
    )


def _data_faults(recipe: Recipe, facts: DatasetFacts | None) -> Iterator[str]:
    if facts is None:
        yield (
            f"{recipe.where('data.root')}: found {recipe.data.root or 'null'}, which can't be read here, and "
            "data.expected doesn't say how large the data is; allowed: a folder with train/ and val/ in it"
        )
        return
    if recipe.data.holdout >= facts.num_train_images:
        yield (
            f"{recipe.where('data.holdout')}: found {recipe.data.holdout} of {facts.num_train_images} training images; "
            "allowed: fewer than there are"
        )
    classes = recipe.model.num_classes
    if classes is not None and classes < facts.num_classes:
        yield (
            f"{recipe.where('model.num_classes')}: found {classes} for data of {facts.num_classes} classes; "
            "allowed: null, or at least as many"
        )


def _error(faults: Sequence[str]) -> PlanError:
    if len(faults) == 1:
        return PlanError(faults[0])
    return PlanError(f"There are {len(faults)} reasons why this can't run:\n" + "\n".join(f"  {f}" for f in faults))
