"""The training loop: from a plan to a trained, evaluated network. Reads top to bottom as the experiment does.

It knows nothing of Ray or terminals: one process calls `train(plan, dataset, World.single(), reporter)`, Ray's workers
call it with their ranks. What it sets up, in this order:

1. the network, its weights a function of the seed or those given, and the optimiser;
2. what a step needs around them: batch-norm statistics, the sum of gradients over ranks, the divergence guard;
3. the newest checkpoint that verifies, into all of them, the same one on every rank;
4. the loader, from the next step on: which images form a step is a function of its number.

A step that the guard refuses may send it back to 3.
"""

import logging
from dataclasses import replace
from enum import StrEnum
from functools import reduce
from time import perf_counter

import torch

from orchestrator.data.index import Dataset
from orchestrator.data.loader import Loader
from orchestrator.errors import DivergedError
from orchestrator.plan.plan import Plan
from orchestrator.run.checkpoints import read_checkpoint
from orchestrator.run.passed_over import PassedOver
from orchestrator.train.checkpoint import Snapshot, TrainingState, load_model, snapshot
from orchestrator.train.compilation import CompileClock
from orchestrator.train.evaluate import Accuracy, evaluate
from orchestrator.train.graph import CaptureOnGpu
from orchestrator.train.images import Normalize
from orchestrator.train.loaders import Loaders
from orchestrator.train.meter import Meter
from orchestrator.train.network import build_network, compile_kernels
from orchestrator.train.optimizer import build_optimizer
from orchestrator.train.process import prepare_process
from orchestrator.train.progress import ProgressTracker
from orchestrator.train.reporter import Reporter, Request
from orchestrator.train.requests import step_samples
from orchestrator.train.resuming import Resuming
from orchestrator.train.saving import Saving
from orchestrator.train.split import Images, split_dataset
from orchestrator.train.step import AUTOCAST_DTYPE, TrainingStep
from orchestrator.train.telemetry import Telemetry
from orchestrator.train.totals import Totals, TotalsQueue
from orchestrator.train.watchdog import Watchdog
from orchestrator.train.world import World

_log = logging.getLogger(__name__)

STEPS_TOLD_BEFORE = 5
"""Of which loss and gradient norm are told when a step is refused."""


class Outcome(StrEnum):
    """How the loop ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    PAUSED = "paused"


class _StepRefusedError(Exception):
    """The guard wants the run to go on from its newest checkpoint."""


def train(plan: Plan, dataset: Dataset, world: World, reporter: Reporter) -> Outcome:
    """Train to the last step of the plan, or to the step after which a stop or a pause was asked for.

    Every rank calls it with the same plan; the first rank's reporter alone is told anything. Raises CheckpointError,
    DataError, DivergedError or StorageError.
    """
    training = _Training(plan, dataset, world, reporter)
    try:
        return training.run()
    finally:
        training.close()


def _counted(state: TrainingState, totals: Totals) -> TrainingState:
    """The state with a step's totals in it."""
    return replace(
        state,
        epoch_loss_sum=state.epoch_loss_sum + totals.loss_sum,
        epoch_num_correct=state.epoch_num_correct + totals.num_correct,
        epoch_num_images=state.epoch_num_images + totals.num_images,
    )


class _Training:
    """A run in one process: the objects of the loop, and one method for each thing that it does."""

    def __init__(self, plan: Plan, dataset: Dataset, world: World, reporter: Reporter) -> None:
        self._plan, self._numerics, self._execution = plan, plan.numerics, plan.execution
        self._split, self._world, self._reporter = split_dataset(dataset, self._numerics), world, reporter
        self._loaders = Loaders(plan=plan, world=world)
        prepare_process(plan)
        self._compile_clock = CompileClock(world.device)
        self._normalize = Normalize(
            mean=self._numerics.mean,
            std=self._numerics.std,
            device=world.device,
            channels_last=self._numerics.channels_last,
        )
        self._schedule = self._numerics.schedule
        if (compiled := compile_kernels(plan, world.device)) is not None:
            reporter.event("kernels_ready", **compiled)
        self._model = build_network(plan, world.device)
        self._optimizer = build_optimizer(self._model, self._numerics.optimizer)
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=self._numerics.precision == "fp16")
        self._step = TrainingStep(
            self._model,
            self._optimizer,
            self._scaler,
            numerics=self._numerics,
            group_shares=plan.placement.group_shares,
            world=world,
            normalize=self._normalize,
            capture=CaptureOnGpu(world.device) if self._execution.cuda_graphs and world.device.type == "cuda" else None,
            groups_in_one_pass=self._execution.groups_in_one_pass,
        )
        self._passed_over = world.broadcast(reporter.passed_over() if world.is_first else PassedOver())
        self._resuming = Resuming(
            plan=plan,
            world=world,
            reporter=reporter,
            model=self._model,
            optimizer=self._optimizer,
            scaler=self._scaler,
            guard=self._step.guard,
        )
        self._state = self._resuming.begin()
        self._totals = TotalsQueue(world.device)
        self._meter = Meter()
        self._telemetry = Telemetry(plan, world, reporter)
        self._progress = ProgressTracker(plan, world, reporter, first_step=self._state.step)
        self._saving = Saving(reporter, self._execution, first_step=self._state.step)
        self._watchdog = Watchdog(self._execution.hang_s)
        self._began_at: float | None = perf_counter()
        self._graphs = self._step.graphs
        self._ends_after: int | None = None
        self._request = Request.NOTHING

    def run(self) -> Outcome:
        """The experiment."""
        while True:
            try:
                return self._run_to_the_end()
            except _StepRefusedError:
                self._roll_back()

    def _run_to_the_end(self) -> Outcome:
        numerics = self._numerics
        self._report("training")
        _log.info("training from step %d to %d", self._state.step, numerics.num_steps)
        training = self._loaders.training(
            self._split.train, first_step=self._state.step, passed_over=self._passed_over.steps
        )
        with training as loader:
            while self._state.step < numerics.num_steps:
                self._train_step(loader)
                if self._state.step % numerics.steps_per_epoch == 0:
                    self._end_epoch()
                self._save_if_due()
                if self._ends_after is not None and self._state.step >= self._ends_after:
                    return self._end_early()
        self._finish_saving()
        self._test()
        self._report("done")
        return Outcome.FINISHED

    def _train_step(self, loader: Loader) -> None:
        step = self._state.step
        if step in self._passed_over.steps:
            self._state = replace(self._state, step=step + 1)
            return
        began_at = perf_counter()
        result = self._step.run(
            lambda: next(loader),
            step=step,
            learning_rate=self._schedule.at(step),
            request=self._reporter.request() if self._world.is_first else Request.NOTHING,
            figures=self._telemetry.slots(),
        )
        self._telemetry.add_step(
            step_s=perf_counter() - began_at, data_s=result.data_wait_s, communication_s=result.communication_s
        )
        self._watchdog.tick()
        self._meter.add_step(
            num_images=result.num_images, data_s=result.data_wait_s, communication_s=result.communication_s
        )
        self._state = replace(self._state, step=step + 1)
        for totals in self._totals.push(step, result):
            self._tell_of_start(totals.step)
            self._take(totals)
        if (step + 1) % self._execution.log_every_steps == 0 or self._meter.is_first_report:
            self._report("training", with_row=True)

    def _tell_of_start(self, step: int) -> None:
        """Say, once each, what it took until the first step was done, and whether steps are replayed from now on."""
        if self._began_at is not None:
            self._reporter.event(
                "first_step",
                step=step,
                first_step_s=perf_counter() - self._began_at,
                compile_s=self._compile_clock.seconds,
            )
            self._began_at = None
        if self._step.graphs != self._graphs:
            self._graphs = self._step.graphs
            self._reporter.event("cuda_graphs", step=step, graphs=self._graphs)

    def _take(self, totals: Totals) -> None:
        """Count what a step left, once it has arrived from the device. The same on every rank."""
        self._telemetry.take(totals.step, totals.figures)
        if totals.request is not Request.NOTHING and self._ends_after is None:
            self._request, self._ends_after = totals.request, totals.step + 1 + self._totals.lag
        if not totals.applied:
            self._refused(totals)
            return
        self._state = _counted(self._state, totals)
        self._progress.samples_checksum = totals.samples_checksum
        self._meter.add_loss(totals.loss_sum / totals.num_images)

    def _refused(self, totals: Totals) -> None:
        """Do with a step that the guard has refused as the recipe says. The same on every rank."""
        policy, step = self._numerics.guard_policy, totals.step
        learning_rate, loss = self._schedule.at(step), totals.loss_sum / totals.num_images
        before = self._step.guard.latest(STEPS_TOLD_BEFORE)
        what = f"step {step} was not applied: loss {loss:.4g}, gradient norm {totals.grad_norm:.4g}"
        if before:
            losses, norms = (", ".join(f"{value:.4g}" for value in values) for values in zip(*before, strict=True))
            what += f" (before it: loss {losses}, gradient norm {norms})"
        self._reporter.event(
            "step_refused",
            step=step,
            loss=str(loss),
            grad_norm=str(totals.grad_norm),
            learning_rate=learning_rate,
            policy=policy,
            losses_before=[before_loss for before_loss, _ in before],
            grad_norms_before=[before_norm for _, before_norm in before],
            samples=step_samples(self._numerics, step, rows=self._split.train.rows).tolist()
            if self._world.is_first
            else [],
        )
        tries = self._passed_over.num_in_epoch(step // self._numerics.steps_per_epoch)
        if policy == "stop" or tries >= self._execution.guard_max_tries:
            after = f" after {tries} such steps in this epoch" if tries else ""
            raise DivergedError(
                f"the run diverged{after}: {what} at learning rate {learning_rate:g}; lower train.optimizer.lr, set "
                "train.schedule.warmup_epochs, or set guard.policy, and launch it under another name"
            )
        _log.warning("%s; %s", what, "going back" if policy == "rollback" else "going on without it")
        if policy == "rollback":
            self._pass_over(step)
            raise _StepRefusedError
        self._pass_over(step)

    def _pass_over(self, step: int) -> None:
        """Leave a step out from now on, also when the run is resumed; after a rollback, all since the checkpoint."""
        first = step
        if self._numerics.guard_policy == "rollback":
            self._saving.wait()
            newest = self._world.broadcast(self._newest_step() if self._world.is_first else None)
            if newest is None:
                raise DivergedError(
                    f"the run diverged at step {step}, before its first checkpoint; lower train.optimizer.lr or set "
                    "train.schedule.warmup_epochs, and launch it under another name"
                )
            first = newest
        self._passed_over = self._passed_over.with_window(
            first=first, last=step, epoch=step // self._numerics.steps_per_epoch
        )
        if self._world.is_first:
            self._reporter.pass_over(self._passed_over)

    def _newest_step(self) -> int | None:
        found = self._reporter.resume_from()
        return found[0].step if found else None

    def _roll_back(self) -> None:
        """Go on from the newest checkpoint; steps up to the refused one are passed over."""
        for _ in self._totals.drain():
            pass
        before = self._state.step
        found = self._resuming.newest()
        assert found is not None
        checkpoint, state = found
        self._state = replace(state, world_size=self._world.size)
        self._progress.num_rolled_back += before - self._state.step
        self._reporter.event("rolled_back", step=before, to_step=self._state.step, checkpoint=checkpoint.path.name)

    def _drain(self) -> None:
        for totals in self._totals.drain():
            self._take(totals)

    def _end_epoch(self) -> None:
        self._drain()
        state = self._state
        epoch = state.step // self._numerics.steps_per_epoch
        num_images = state.epoch_num_images
        train_top1 = 100 * state.epoch_num_correct / num_images if num_images else None
        self._state = replace(state, train_top1=train_top1, epoch_loss_sum=0.0, epoch_num_correct=0, epoch_num_images=0)
        if state.step in self._execution.evaluation_steps:
            self._evaluate(epoch)
        self._report("training")

    def _evaluate(self, epoch: int) -> None:
        self._report("evaluating")
        accuracy = self._accuracy(self._split.val)
        best = max(accuracy.top1, self._state.best_top1 or 0.0)
        self._state = replace(self._state, top1=accuracy.top1, top5=accuracy.top5, best_top1=best)
        self._reporter.event(
            "evaluated",
            epoch=epoch,
            step=self._state.step,
            **accuracy.to_json(),
        )

    def _accuracy(self, images: Images) -> Accuracy:
        with self._meter.paused("evaluation"), self._loaders.evaluation(images) as loader:
            return evaluate(
                self._model,
                loader,
                normalize=self._normalize,
                autocast_dtype=AUTOCAST_DTYPE[self._numerics.precision],
                world=self._world,
                on_batch=lambda num_images: self._watchdog.tick(),
            )

    def _test(self) -> None:
        """Show the network the test set, once, now that nothing can be chosen by it any more."""
        if self._split.test is None:
            return
        self._report("testing")
        checkpoint = None
        if self._execution.test_weights == "best":
            checkpoint = self._world.broadcast(self._reporter.best() if self._world.is_first else None)
        if checkpoint is not None:
            load_model(read_checkpoint(checkpoint.path), self._model, source=checkpoint.path.name)
        accuracy = self._accuracy(self._split.test)
        self._state = replace(self._state, test_top1=accuracy.top1, test_top5=accuracy.top5)
        step = checkpoint.step if checkpoint is not None else self._state.step
        self._reporter.event("tested", step=step, **accuracy.to_json())

    def _save_if_due(self) -> None:
        """Checkpoint. The ranks hold the same values, so the first one writes and the others go on."""
        if not self._world.is_first:
            return
        if self._saving.look():
            self._report("training")
        if not self._saving.is_due(self._state.step):
            return
        underway = self._totals.underway()
        if any(not totals.applied or totals.request is not Request.NOTHING for totals in underway):
            return  # all ranks will learn of it after the next step, and act alike; the checkpoint stays due
        state = reduce(_counted, underway, self._state)
        with self._meter.paused("checkpoint"):
            self._saving.begin(state.step, lambda: self._snapshot(state))

    def _snapshot(self, state: TrainingState) -> Snapshot:
        state = replace(
            state,
            grad_scaler=self._scaler.state_dict() if self._scaler.is_enabled() else None,
            guard=self._step.guard.state(),
        )
        return snapshot(self._model, self._optimizer, state)

    def _finish_saving(self) -> None:
        """Return when the newest state is on storage."""
        if not self._world.is_first:
            return
        self._drain()
        self._report("saving")
        with self._meter.paused("checkpoint"):
            self._saving.finish(self._state.step, lambda: self._snapshot(self._state))

    def _end_early(self) -> Outcome:
        self._drain()
        self._finish_saving()
        self._world.gather_text("")  # none leaves, and lets its machine go, before the checkpoint is there
        outcome = Outcome.STOPPED if self._request is Request.STOP else Outcome.PAUSED
        self._reporter.event(str(outcome), step=self._state.step)
        self._report(outcome)
        return outcome

    def _report(self, activity: str, *, with_row: bool = False) -> None:
        """Tell the reporter the newest figures."""
        if self._world.is_first:
            self._progress.report(self._state, self._meter, self._saving, activity=activity, with_row=with_row)

    def close(self) -> None:
        """Let threads end; the watchdog last, since a storage that hangs holds up the others."""
        self._telemetry.close()
        self._saving.close()
        self._watchdog.close()
