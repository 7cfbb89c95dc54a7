"""Arithmetic that can't work out, whatever the cluster and the data: keys that are valid alone but not together."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.recipe.schema import Recipe, Workers


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Keys that don't go together; the first is the one to blame."""

    keys: tuple[str, ...]
    message: str


def contradictions(recipe: Recipe) -> Iterator[Contradiction]:
    """All contradictions within a recipe."""
    yield from _batch(recipe)
    yield from _schedule(recipe)
    yield from _images(recipe)
    if recipe.limits.money is not None and recipe.cluster.price_per_worker_hour is None:
        yield Contradiction(
            ("limits.money", "cluster.price_per_worker_hour"),
            f"found {recipe.limits.money:g}, but no price; allowed: null, or a number with "
            "cluster.price_per_worker_hour beside it",
        )


def _batch(recipe: Recipe) -> Iterator[Contradiction]:
    train = recipe.train
    if train.batch_norm_groups > train.global_batch_size:
        yield Contradiction(
            ("train.batch_norm_groups", "train.global_batch_size"),
            f"found {train.batch_norm_groups} groups for a batch of {train.global_batch_size} images; "
            f"allowed: at most one group an image, {train.global_batch_size}",
        )
    workers = recipe.cluster.workers
    if isinstance(workers, Workers):
        if workers.min > workers.max:
            yield Contradiction(
                ("cluster.workers.min", "cluster.workers.max"),
                f"found at least {workers.min} workers and at most {workers.max}; allowed: the smaller one as min",
            )
        workers = workers.max
    if workers != "auto" and workers > train.global_batch_size:
        yield Contradiction(
            ("cluster.workers", "train.global_batch_size"),
            f"found {workers} workers for a batch of {train.global_batch_size} images; "
            f"allowed: at most one worker an image, {train.global_batch_size}",
        )
    if train.optimizer.nesterov and train.optimizer.momentum == 0:
        yield Contradiction(
            ("train.optimizer.nesterov", "train.optimizer.momentum"),
            "found Nesterov momentum with a momentum of 0; allowed: a momentum above 0, or nesterov: false",
        )


def _schedule(recipe: Recipe) -> Iterator[Contradiction]:
    epochs, schedule = recipe.train.epochs, recipe.train.schedule
    keys = ("train.schedule.milestones", "train.epochs")
    are_epochs = all(isinstance(milestone, int) for milestone in schedule.milestones)
    end, what = (epochs, f"epochs below {epochs}") if are_epochs else (1, "fractions of the run, below 1")
    beyond = [f"{milestone:g}" for milestone in schedule.milestones if milestone >= end]
    if beyond:
        yield Contradiction(
            keys, f"found {', '.join(beyond)}, where the run of {epochs} epochs is over; allowed: {what}"
        )
    if any(earlier >= later for earlier, later in pairwise(schedule.milestones)):
        found = ", ".join(f"{milestone:g}" for milestone in schedule.milestones)
        yield Contradiction(keys[:1], f"found [{found}]; allowed: each later than the one before")
    if schedule.warmup_epochs >= epochs:
        yield Contradiction(
            ("train.schedule.warmup_epochs", "train.epochs"),
            f"found {schedule.warmup_epochs:g} for a run of {epochs} epochs; allowed: fewer than the run has",
        )


def _images(recipe: Recipe) -> Iterator[Contradiction]:
    data = recipe.data
    if data.eval.resize is not None and data.eval.crop > data.eval.resize:
        yield Contradiction(
            ("data.eval.crop", "data.eval.resize"),
            f"found {data.eval.crop} pixels of an image whose short side is {data.eval.resize}; "
            f"allowed: at most {data.eval.resize}",
        )
    for key, (low, high) in {"data.train.scale": data.train.scale, "data.train.ratio": data.train.ratio}.items():
        if low > high:
            yield Contradiction((key,), f"found [{low:g}, {high:g}]; allowed: the smaller one first")
    if data.expected is not None and data.holdout >= data.expected.train_images:
        yield Contradiction(
            ("data.holdout", "data.expected.train_images"),
            f"found {data.holdout} of {data.expected.train_images} training images; allowed: fewer than there are",
        )
    if data.holdout and recipe.eval.test == "best" and recipe.checkpoint.keep_best == 0:
        yield Contradiction(
            ("eval.test", "checkpoint.keep_best"),
            'found "best" where no best checkpoint is kept; allowed: "last", or checkpoint.keep_best of at least 1',
        )
    classes = recipe.model.num_classes
    if classes is not None and data.expected is not None and classes < data.expected.classes:
        yield Contradiction(
            ("model.num_classes", "data.expected.classes"),
            f"found {classes} for data of {data.expected.classes} classes; allowed: null, or at least as many",
        )
