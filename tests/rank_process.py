"""One rank of a training for tests, as a process of its own."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from time import sleep
from typing import Any

import torch
import torch.distributed as dist

from orchestrator.data.index import index_dataset
from orchestrator.engine.planning import load_plan
from orchestrator.recipe.load import load_recipe
from orchestrator.run import checkpoints
from orchestrator.run.directory import RunDirectory
from orchestrator.train import loop, network
from orchestrator.train.loop import train
from orchestrator.train.reporter import RunReporter, SilentReporter
from orchestrator.train.step import TrainingStep
from orchestrator.train.world import World

SLOWNESS_S = 0.2


class MortalReporter(RunReporter):
    """Kills its process, as a vanishing machine would, after a step or in the middle of a save."""

    moment, die_at = "never", -1

    def report(self, progress: Any, row: Any = None) -> None:
        super().report(progress, row)
        if self.moment == "at" and progress.step == self.die_at:
            self._metrics.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def save(self, *, step: int, **arguments: Any) -> checkpoints.Checkpoint:
        if self.moment == "saving" and step == self.die_at:
            checkpoints.files.write_through = _die_on_second_write  # the first file is whole, the second half there
        return super().save(step=step, **arguments)


def _die_on_second_write(path: Path, content: bytes) -> None:
    if path.name == "optimizer.safetensors":
        path.write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    path.write_bytes(content)


def _compute_in_float64() -> None:
    """For tests of the arithmetic: the same loop without float32's rounding."""
    create_model, normalize = network.create_model, loop.Normalize.__call__
    network.create_model = lambda *args, **kwargs: create_model(*args, **kwargs).double()
    loop.Normalize.__call__ = lambda self, *images: normalize(self, *images).double()
    torch.Tensor.float = lambda self: self


def _be_slow(phase: str) -> None:
    """For tests of who is named as slow."""
    run, normalize = TrainingStep.run, loop.Normalize.__call__

    def slow_batch(next_batch: Any) -> Any:
        sleep(SLOWNESS_S)
        return next_batch()

    def slow_images(self: Any, *images: Any) -> Any:
        sleep(SLOWNESS_S)
        return normalize(self, *images)

    if phase == "data":
        TrainingStep.run = lambda self, batch, **options: run(self, lambda: slow_batch(batch), **options)
    else:
        loop.Normalize.__call__ = slow_images


def rank_of(path: Path, attempt: int, die: str, environment: Mapping[str, str], log: Path) -> None:
    """Train, and say on the log what goes wrong. environment: has the rank, as torchrun gives it."""
    os.environ.update(environment)
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    if os.environ.get("TEST_FLOAT64"):
        _compute_in_float64()
    run = RunDirectory(path)
    if os.environ.get("TEST_SLOW"):
        _be_slow(os.environ["TEST_SLOW"].split(",")[int(os.environ["RANK"])])
    world = World(rank=int(os.environ["RANK"]), size=int(os.environ["WORLD_SIZE"]), device=torch.device("cpu"))
    if world.size > 1:
        dist.init_process_group("gloo")
    plan = load_plan(run)
    assert plan is not None
    dataset = index_dataset(str(load_recipe(run.recipe).data.root))
    if not world.is_first:
        train(plan, dataset, world, SilentReporter())
        return
    reporter = MortalReporter(run, attempt=attempt, keep_last=2, keep_best=1)
    moment, _, step = die.partition(":")
    reporter.moment, reporter.die_at = moment, int(step or -1)
    train(plan, dataset, world, reporter)
    reporter.close()
