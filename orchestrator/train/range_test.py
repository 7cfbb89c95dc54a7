"""A range test of the learning rate: the loop's own step, at a rate that grows from step to step until the loss does.

Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3. One process computes every
batch-norm group of the plan, so its losses are those that a run would have, at whatever number of workers.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch

from orchestrator.data.index import Dataset
from orchestrator.data.loader import open_loader
from orchestrator.plan.groups import group_shares
from orchestrator.plan.plan import Numerics, Plan
from orchestrator.train.images import Normalize
from orchestrator.train.network import build_network
from orchestrator.train.optimizer import build_optimizer
from orchestrator.train.process import prepare_process
from orchestrator.train.requests import training_requests
from orchestrator.train.split import split_dataset
from orchestrator.train.step import TrainingStep
from orchestrator.train.transforms import train_transform
from orchestrator.train.world import World

SMOOTHING: Final = 0.9
"""Of the running mean of losses, which is corrected for its start."""
TOO_HIGH: Final = 4.0
"""Times the lowest smoothed loss: there the test ends."""
SAFETY: Final = 10.0
"""The rate suggested is this much below the one of the lowest loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangePoint:
    """One step of the test."""

    learning_rate: float
    loss: float
    smoothed_loss: float
    grad_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTest:
    """What came of it."""

    points: tuple[RangePoint, ...]
    """Of the steps that were applied."""
    diverged_at: float | None
    """The rate at which the loss exploded or stopped being finite; None if it never did."""

    @property
    def lowest(self) -> RangePoint:
        """Where the smoothed loss was lowest."""
        return min(self.points, key=lambda point: point.smoothed_loss)

    @property
    def suggested(self) -> float:
        """A rate to begin a run with."""
        return self.lowest.learning_rate / SAFETY


def range_test(
    plan: Plan,
    dataset: Dataset,
    *,
    lowest: float,
    highest: float,
    num_steps: int,
    on_step: Callable[[int], None] = lambda done: None,
) -> RangeTest:
    """Train for num_steps steps at rates from lowest to highest, each the same factor above the one before.

    Nothing is kept. on_step: told how many steps are done. Raises DataError.
    """
    prepare_process(plan)
    numerics = _undisturbed(plan.numerics, num_steps)
    world = World.single(plan.placement.device)
    shares = group_shares(num_groups=numerics.batch_norm_groups, world_size=1, rank=0)
    step = _training_step(replace(plan, numerics=numerics), world)
    images = split_dataset(dataset, numerics).train
    loader = open_loader(
        numerics.loader,
        images.manifest,
        train_transform(numerics.train_transform),
        seed=numerics.seed,
        requests=training_requests(numerics, shares, rows=images.rows, first_step=0),
        max_batch_size=math.ceil(numerics.global_batch_size / numerics.batch_norm_groups),
        device=world.device_type,
        num_threads=plan.execution.loader_threads,
    )
    points: list[RangePoint] = []
    mean = 0.0
    with loader:
        for number, rate in enumerate(_rates(lowest, highest, num_steps)):
            result = step.run(lambda: next(loader), step=number, learning_rate=rate)
            loss_sum, _, _, _, applied, grad_norm = result.totals.tolist()
            loss = loss_sum / result.num_images
            on_step(number + 1)
            if not applied or not math.isfinite(loss):
                return RangeTest(points=tuple(points), diverged_at=rate)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            smoothed = mean / (1 - SMOOTHING ** (number + 1))
            points.append(RangePoint(learning_rate=rate, loss=loss, smoothed_loss=smoothed, grad_norm=grad_norm))
            if smoothed > TOO_HIGH * min(point.smoothed_loss for point in points):
                return RangeTest(points=tuple(points), diverged_at=rate)
    return RangeTest(points=tuple(points), diverged_at=None)


def _rates(lowest: float, highest: float, num_steps: int) -> Iterator[float]:
    factor = (highest / lowest) ** (1 / max(1, num_steps - 1))
    return itertools.islice(
        itertools.accumulate(itertools.repeat(factor), lambda rate, by: rate * by, initial=lowest), num_steps
    )


def _undisturbed(numerics: Numerics, num_steps: int) -> Numerics:
    """Epochs enough for the test, and no guard that takes steps out before the loss explodes."""
    epochs = math.ceil(num_steps / numerics.steps_per_epoch)
    return replace(
        numerics, epochs=epochs, num_steps=epochs * numerics.steps_per_epoch, guard_spike=None, clip_grad_norm=None
    )


def _training_step(plan: Plan, world: World) -> TrainingStep:
    numerics = plan.numerics
    model = build_network(plan, world.device)
    return TrainingStep(
        model,
        build_optimizer(model, numerics.optimizer),
        torch.amp.GradScaler(world.device.type, enabled=numerics.precision == "fp16"),
        numerics=numerics,
        group_shares=[group_shares(num_groups=numerics.batch_norm_groups, world_size=1, rank=0)],
        world=world,
        normalize=Normalize(
            mean=numerics.mean, std=numerics.std, device=world.device, channels_last=numerics.channels_last
        ),
    )
