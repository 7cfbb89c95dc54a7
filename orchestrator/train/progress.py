"""What a run says of itself while it trains: progress.json's figures and the rows of the metrics log."""

from dataclasses import asdict
from math import isfinite
from time import time

from orchestrator.plan.plan import Plan
from orchestrator.run.progress import Progress
from orchestrator.train.checkpoint import TrainingState
from orchestrator.train.meter import Meter
from orchestrator.train.reporter import Reporter
from orchestrator.train.saving import Saving
from orchestrator.train.world import World

_ROW_OF_PROGRESS = ("step", "epoch", "loss", "learning_rate", "train_top1", "images_per_s")
_ROW_OF_FIGURES = ("step_s", "data_s", "compute_s", "communication_s")


class ProgressTracker:
    """Puts together what the first rank knows and hands it to the reporter."""

    def __init__(self, plan: Plan, world: World, reporter: Reporter, *, first_step: int) -> None:
        self._numerics = plan.numerics
        self._world_size = world.size
        self._reporter = reporter
        self._first_step = first_step
        self.samples_checksum = 0
        """Of the latest step whose totals have arrived."""
        self.num_rolled_back = 0
        """Steps of this attempt that were undone."""

    def report(self, state: TrainingState, meter: Meter, saving: Saving, *, activity: str, with_row: bool) -> None:
        """Report how things stand; with_row closes the meter's window and adds a row to the metrics log."""
        numerics, figures = self._numerics, meter.figures(close_window=with_row)
        num_images = state.epoch_num_images
        progress = Progress(
            step=state.step,
            first_step=self._first_step,
            num_steps=numerics.num_steps,
            epoch=state.step // numerics.steps_per_epoch,
            num_epochs=numerics.epochs,
            steps_per_epoch=numerics.steps_per_epoch,
            world_size=self._world_size,
            loss=figures.loss,
            learning_rate=numerics.schedule.at(min(state.step, numerics.num_steps - 1)),
            train_top1=100 * state.epoch_num_correct / num_images if num_images else state.train_top1,
            top1=state.top1,
            top5=state.top5,
            best_top1=state.best_top1,
            test_top1=state.test_top1,
            test_top5=state.test_top5,
            images_per_s=figures.images_per_s,
            data_s=figures.data_s,
            compute_s=figures.compute_s,
            communication_s=figures.communication_s,
            eta_s=(numerics.num_steps - state.step) * figures.step_s if figures.step_s is not None else None,
            last_checkpoint=saving.latest.path.name if saving.latest else None,
            last_checkpoint_at=saving.latest_at,
            checkpoint_hold_s=saving.hold_s,
            checkpoint_write_s=saving.write_s,
            checkpoint_interval_s=saving.interval_s if isfinite(saving.interval_s) else None,
            at=time(),
            num_rolled_back=self.num_rolled_back,
            seconds=meter.seconds(),
            activity=activity,
        )
        row: dict[str, float | int | None] | None = None
        if with_row:
            row = {key: getattr(progress, key) for key in _ROW_OF_PROGRESS}
            row |= {key: value for key, value in asdict(figures).items() if key in _ROW_OF_FIGURES}
            row["samples_checksum"] = self.samples_checksum
        self._reporter.report(progress, row)
