"""The training loop: from a plan to a trained, evaluated network. Reads top to bottom as the experiment does.

It knows nothing of Ray or terminals: one process calls `train(plan, dataset, World.single(), reporter)`, Ray's workers
call it with their ranks. What it sets up, in this order:

1. the network, its weights a function of the seed;
2. the optimiser;
3. the newest checkpoint that verifies, into both, the same one on every rank;
4. what a step needs around them: batch-norm statistics, the sum of gradients over ranks;
5. the loader, from the next step on: which images form a step is a function of its number.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from time import perf_counter, time

import torch

from orchestrator.data.batch import SampleRequest
from orchestrator.data.index import Dataset
from orchestrator.data.loader import Loader, open_loader
from orchestrator.data.manifest import Manifest
from orchestrator.data.transforms import Transform
from orchestrator.errors import CheckpointError, DivergedError
from orchestrator.models import create_model
from orchestrator.plan.plan import Plan
from orchestrator.run.checkpoints import Checkpoint, read_checkpoint
from orchestrator.run.progress import Progress
from orchestrator.train.checkpoint import TrainingState, pack, unpack
from orchestrator.train.evaluate import evaluate
from orchestrator.train.images import Normalize
from orchestrator.train.meter import Meter
from orchestrator.train.optimizer import build_optimizer
from orchestrator.train.process import prepare_process
from orchestrator.train.reporter import Reporter
from orchestrator.train.requests import evaluation_requests, training_requests
from orchestrator.train.step import AUTOCAST_DTYPE, TrainingStep
from orchestrator.train.totals import Totals, TotalsQueue
from orchestrator.train.transforms import eval_transform, train_transform
from orchestrator.train.world import World

_log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How the loop ended."""

    FINISHED = "finished"
    STOPPED = "stopped"


def train(plan: Plan, dataset: Dataset, world: World, reporter: Reporter) -> Outcome:
    """Train to the last step of the plan, or to the step after which a stop was asked for.

    Every rank calls it with the same plan; the first rank's reporter alone is told anything. Raises CheckpointError,
    DataError, DivergedError or StorageError.
    """
    return _Training(plan, dataset, world, reporter).run()


class _Training:
    """A run in one process: the objects of the loop, and one method for each thing that it does."""

    def __init__(self, plan: Plan, dataset: Dataset, world: World, reporter: Reporter) -> None:
        self._plan, self._numerics, self._execution = plan, plan.numerics, plan.execution
        self._dataset, self._world, self._reporter = dataset, world, reporter
        self._shares = plan.placement.group_shares[world.rank]
        prepare_process(plan)
        self._normalize = Normalize(
            mean=self._numerics.mean,
            std=self._numerics.std,
            device=world.device,
            channels_last=self._numerics.channels_last,
        )
        self._schedule = self._numerics.schedule
        self._model = self._build_model()
        self._optimizer = build_optimizer(self._model, self._numerics.optimizer)
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=self._numerics.precision == "fp16")
        self._state = self._resume()
        self._step = TrainingStep(
            self._model,
            self._optimizer,
            self._scaler,
            numerics=self._numerics,
            group_shares=plan.placement.group_shares,
            world=world,
            normalize=self._normalize,
        )
        self._totals = TotalsQueue(world.device)
        self._meter = Meter()
        self._progress = self._initial_progress()
        self._saved_at, self._saved_step = perf_counter(), self._state.step
        self._stop_after: int | None = None
        self._samples_crc32 = 0

    def _build_model(self) -> torch.nn.Module:
        architecture = self._numerics.model
        model = create_model(
            architecture.name,
            num_classes=self._numerics.num_classes,
            drop_rate=architecture.drop_rate,
            init=architecture.init,
            memory_efficient=self._execution.memory_efficient,
            seed=self._numerics.seed,
        ).to(self._world.device)
        if self._numerics.channels_last:
            model = model.to(memory_format=torch.channels_last)
        return model.train()

    def _resume(self) -> TrainingState:
        """Load the checkpoint to go on from, if there is one, and say where that is."""
        found = self._agreed_checkpoint()
        fingerprint = self._numerics.fingerprint
        if found is None:
            self._reporter.event("training_starts", step=0, world_size=self._world.size)
            return TrainingState(numerics_fingerprint=fingerprint, world_size=self._world.size, step=0)
        checkpoint, contents = found
        state = unpack(contents, self._model, self._optimizer, source=checkpoint.path.name)
        if state.numerics_fingerprint != fingerprint:
            raise CheckpointError(
                f"checkpoint {checkpoint.path} belongs to another plan (numerics {state.numerics_fingerprint[:19]}…, "
                f"this run's are {fingerprint[:19]}…); start a new run, or put the recipe back as it was"
            )
        if state.grad_scaler is not None:
            self._scaler.load_state_dict(state.grad_scaler)
        self._reporter.event(
            "training_resumes",
            step=state.step,
            checkpoint=checkpoint.path.name,
            world_size=self._world.size,
            world_size_before=state.world_size,
        )
        _log.info("resuming from %s at step %d", checkpoint.path.name, state.step)
        return replace(state, world_size=self._world.size)

    def _agreed_checkpoint(self) -> tuple[Checkpoint, dict[str, bytes]] | None:
        """What the first rank found to resume from; the others read the same one."""
        found = self._reporter.resume_from() if self._world.is_first else None
        chosen = self._world.broadcast(found[0] if found else None)
        if chosen is None or found is not None:
            return found
        return chosen, read_checkpoint(chosen.path)

    def run(self) -> Outcome:
        """The experiment."""
        numerics = self._numerics
        self._report("training")
        _log.info("training from step %d to %d", self._state.step, numerics.num_steps)
        with self._open_training_loader() as loader:
            while self._state.step < numerics.num_steps:
                self._train_step(loader)
                if self._state.step % numerics.steps_per_epoch == 0:
                    self._end_epoch()
                if self._state.step in self._execution.checkpoint_steps or self._clock_says_save():
                    self._save()
                if self._stop_after is not None and self._state.step >= self._stop_after:
                    return self._stop()
        self._report("done")
        return Outcome.FINISHED

    def _open_training_loader(self) -> Loader:
        numerics = self._numerics
        return self._open_loader(
            self._dataset.train,
            train_transform(numerics.train_transform),
            training_requests(numerics, self._shares, first_step=self._state.step),
            max_batch_size=math.ceil(numerics.global_batch_size / numerics.batch_norm_groups),
        )

    def _open_evaluation_loader(self) -> Loader:
        batch_size = self._execution.eval_batch_size
        return self._open_loader(
            self._dataset.val,
            eval_transform(self._numerics.eval_transform),
            evaluation_requests(self._dataset.val.num_samples, self._world, batch_size=batch_size),
            max_batch_size=batch_size,
        )

    def _open_loader(
        self, manifest: Manifest, transform: Transform, requests: Iterator[SampleRequest], *, max_batch_size: int
    ) -> Loader:
        return open_loader(
            self._numerics.loader,
            manifest,
            transform,
            seed=self._numerics.seed,
            requests=requests,
            max_batch_size=max_batch_size,
            device=self._world.device_type,
            device_index=self._world.device.index or 0,
            num_threads=self._execution.loader_threads,
            prefetch=self._execution.prefetch,
        )

    def _train_step(self, loader: Loader) -> None:
        step = self._state.step
        result = self._step.run(
            lambda: next(loader),
            step=step,
            learning_rate=self._schedule.at(step),
            stop=self._world.is_first and self._reporter.stop_requested(),
        )
        self._meter.add_step(
            num_images=result.num_images, data_s=result.data_wait_s, communication_s=result.communication_s
        )
        self._samples_crc32 = result.samples_crc32
        self._state = replace(self._state, step=step + 1)
        for totals in self._totals.push(step, result):
            self._take(totals)
        if (step + 1) % self._execution.log_every_steps == 0 or self._meter.is_first_report:
            self._report("training", with_row=True)

    def _take(self, totals: Totals) -> None:
        """Count what a step left, once it has arrived from the device. The same on every rank."""
        mean_loss = totals.loss_sum / totals.num_images
        if not math.isfinite(mean_loss):
            self._reporter.event("diverged", step=totals.step, loss=str(mean_loss))
            raise DivergedError(
                f"the loss of step {totals.step} is {mean_loss}: the run diverged at learning rate "
                f"{self._schedule.at(totals.step):g}; lower train.optimizer.lr or set train.schedule.warmup_epochs, "
                "and launch it under another name"
            )
        state = self._state
        self._state = replace(
            state,
            epoch_loss_sum=state.epoch_loss_sum + totals.loss_sum,
            epoch_num_correct=state.epoch_num_correct + totals.num_correct,
            epoch_num_images=state.epoch_num_images + totals.num_images,
        )
        self._meter.add_loss(mean_loss)
        if totals.stop:
            self._stop_after = totals.step + 1 + self._totals.lag

    def _drain(self) -> None:
        for totals in self._totals.drain():
            self._take(totals)

    def _end_epoch(self) -> None:
        self._drain()
        state = self._state
        epoch = state.step // self._numerics.steps_per_epoch
        train_top1 = 100 * state.epoch_num_correct / state.epoch_num_images
        self._state = replace(state, train_top1=train_top1, epoch_loss_sum=0.0, epoch_num_correct=0, epoch_num_images=0)
        if state.step in self._execution.evaluation_steps:
            self._evaluate(epoch)
        self._report("training")

    def _evaluate(self, epoch: int) -> None:
        self._report("evaluating")
        with self._meter.paused(), self._open_evaluation_loader() as loader:
            accuracy = evaluate(
                self._model,
                loader,
                normalize=self._normalize,
                autocast_dtype=AUTOCAST_DTYPE[self._numerics.precision],
                world=self._world,
            )
        best = max(accuracy.top1, self._state.best_top1 or 0.0)
        self._state = replace(self._state, top1=accuracy.top1, top5=accuracy.top5, best_top1=best)
        self._reporter.event(
            "evaluated",
            epoch=epoch,
            step=self._state.step,
            num_images=accuracy.num_images,
            correct1=accuracy.correct1,
            correct5=accuracy.correct5,
            top1=accuracy.top1,
            top5=accuracy.top5,
            loss=accuracy.loss,
        )

    def _clock_says_save(self) -> bool:
        minutes = self._execution.checkpoint_every_minutes
        return self._world.is_first and minutes is not None and perf_counter() - self._saved_at >= 60 * minutes

    def _save(self) -> None:
        """Checkpoint. The ranks hold the same values, so the first one writes and the others go on to the next step."""
        if not self._world.is_first or self._state.step == self._saved_step:
            return
        self._drain()
        self._report("saving")
        with self._meter.paused():
            state = replace(self._state, grad_scaler=self._scaler.state_dict() if self._scaler.is_enabled() else None)
            checkpoint = self._reporter.save(
                step=state.step,
                contents=pack(self._model, self._optimizer, state),
                metrics={"top1": state.top1, "top5": state.top5},
            )
        self._saved_at, self._saved_step = perf_counter(), self._state.step
        self._progress = replace(self._progress, last_checkpoint=checkpoint.path.name, last_checkpoint_at=time())
        self._report("training")

    def _stop(self) -> Outcome:
        self._save()
        self._reporter.event("stopped", step=self._state.step)
        self._report("stopped")
        return Outcome.STOPPED

    def _initial_progress(self) -> Progress:
        return Progress(
            step=self._state.step,
            first_step=self._state.step,
            num_steps=self._numerics.num_steps,
            epoch=0,
            num_epochs=self._numerics.epochs,
            steps_per_epoch=self._numerics.steps_per_epoch,
            world_size=self._world.size,
        )

    def _report(self, activity: str, *, with_row: bool = False) -> None:
        """Tell the reporter the newest figures."""
        if not self._world.is_first:
            return
        state, figures = self._state, self._meter.figures(close_window=with_row)
        remaining = self._numerics.num_steps - state.step
        num_images = state.epoch_num_images
        self._progress = replace(
            self._progress,
            step=state.step,
            epoch=state.step // self._numerics.steps_per_epoch,
            loss=figures.loss,
            learning_rate=self._schedule.at(min(state.step, self._numerics.num_steps - 1)),
            train_top1=100 * state.epoch_num_correct / num_images if num_images else state.train_top1,
            top1=state.top1,
            top5=state.top5,
            best_top1=state.best_top1,
            images_per_s=figures.images_per_s,
            data_s=figures.data_s,
            compute_s=figures.compute_s,
            communication_s=figures.communication_s,
            eta_s=remaining * figures.step_s if figures.step_s is not None else None,
            activity=activity,
        )
        row: dict[str, float | int | None] | None = None
        if with_row:
            row = {
                key: getattr(self._progress, key)
                for key in ("step", "epoch", "loss", "learning_rate", "train_top1", "images_per_s")
            }
            row |= {key: getattr(figures, key) for key in ("step_s", "data_s", "compute_s", "communication_s")}
            row["samples_crc32"] = self._samples_crc32
        self._reporter.report(self._progress, row)
