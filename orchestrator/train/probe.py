"""How fast this machine trains a network: the training step of the real loop on images that are made up.

One worker is measured, with the threads and on the device that the plan gives it; data, communication and other
workers are left out.
"""

from dataclasses import replace
from time import perf_counter
from typing import Final

import numpy as np
import torch

from orchestrator.data.batch import Batch
from orchestrator.plan.estimate import largest_micro_batch
from orchestrator.plan.groups import group_shares
from orchestrator.plan.plan import Numerics, Plan
from orchestrator.plan.rates import MeasuredRate
from orchestrator.train.images import Normalize
from orchestrator.train.network import build_network
from orchestrator.train.optimizer import build_optimizer
from orchestrator.train.process import prepare_process
from orchestrator.train.step import TrainingStep
from orchestrator.train.world import World

MIN_STEPS: Final = 3
LONGEST_STEP_S: Final = 2.0
"""Micro-batches are made smaller than the run's where one would take longer."""

_FIRST_IMAGES: Final = 2


def measure_rate(plan: Plan, *, min_duration_s: float = 5.0) -> MeasuredRate:
    """Train on made-up images for about min_duration_s after warming up.

    The rate is that of the fastest step, which other programs disturbed least: a run has the machine to itself.
    Sets this process's threads and determinism as a worker of the run would.
    """
    prepare_process(plan)
    device = torch.device(plan.placement.device)
    most_images = largest_micro_batch(plan.numerics, plan.execution, plan.placement)
    num_images = _affordable_images(plan, device, most_images)
    durations_s = _step_durations_s(plan, device, num_images, min_duration_s=min_duration_s)
    is_cpu = device.type == "cpu"
    return MeasuredRate(
        device="cpu" if is_cpu else torch.cuda.get_device_name(device),
        num_cores=plan.placement.compute_threads if is_cpu else None,
        model=plan.numerics.model.name,
        image_size=plan.numerics.train_transform.image_size,
        precisions=(plan.numerics.precision,),
        channels_last=plan.numerics.channels_last,
        images_per_s=num_images / min(durations_s),
        source=f"measured here on one worker, the fastest of {len(durations_s)} steps of {num_images} made-up images",
    )


def _affordable_images(plan: Plan, device: torch.device, most_images: int) -> int:
    """The run's micro-batch, or as much of it as LONGEST_STEP_S allows."""
    first = min(_FIRST_IMAGES, most_images)
    image_s = min(_step_durations_s(plan, device, first, min_duration_s=0.0)) / first
    return max(first, min(most_images, int(LONGEST_STEP_S / image_s)))


def _step_durations_s(plan: Plan, device: torch.device, num_images: int, *, min_duration_s: float) -> list[float]:
    """Seconds of each step after one to warm up; at least MIN_STEPS of them."""
    numerics = _with_batch(plan.numerics, num_images)
    step = _training_step(plan, numerics, device)
    batch = _made_up_batch(numerics, device, num_images)
    durations_s: list[float] = []
    while len(durations_s) <= MIN_STEPS or sum(durations_s) < min_duration_s:
        started_at = perf_counter()
        step.run(lambda: batch, step=0, learning_rate=numerics.optimizer.lr)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        durations_s.append(perf_counter() - started_at)
    return durations_s[1:]


def _with_batch(numerics: Numerics, num_images: int) -> Numerics:
    """The same computation, with one batch-norm group of num_images as its whole batch."""
    return replace(
        numerics,
        global_batch_size=num_images,
        last_batch_size=num_images,
        batch_norm_groups=1,
    )


def _training_step(plan: Plan, numerics: Numerics, device: torch.device) -> TrainingStep:
    model = build_network(replace(plan, numerics=numerics), device)
    return TrainingStep(
        model,
        build_optimizer(model, numerics.optimizer),
        torch.amp.GradScaler(device.type, enabled=numerics.precision == "fp16"),
        numerics=numerics,
        group_shares=[group_shares(num_groups=1, world_size=1, rank=0)],
        world=World.single(device.type),
        normalize=Normalize(mean=numerics.mean, std=numerics.std, device=device, channels_last=numerics.channels_last),
    )


def _made_up_batch(numerics: Numerics, device: torch.device, num_images: int) -> Batch:
    """Random pixels and labels; of no consequence to anything but time."""
    side = numerics.train_transform.image_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, side, side, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, numerics.num_classes, (num_images,), generator=generator)
    return Batch(
        images=images.to(device), labels=labels.to(device), indices=np.arange(num_images, dtype=np.int64), epoch=0
    )
