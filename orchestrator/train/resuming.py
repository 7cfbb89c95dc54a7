"""Where a training goes on: the newest checkpoint that verifies, the same one on every rank, or the beginning."""

import logging
from dataclasses import dataclass, replace

import torch
from torch import nn

from orchestrator.errors import CheckpointError
from orchestrator.plan.plan import Plan
from orchestrator.run.checkpoints import Checkpoint, read_checkpoint
from orchestrator.run.patience import patiently
from orchestrator.train.checkpoint import TrainingState, unpack
from orchestrator.train.guard import Guard
from orchestrator.train.reporter import Reporter
from orchestrator.train.weights import start_from_given_weights
from orchestrator.train.world import World

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resuming:
    """What a checkpoint is loaded into. Every rank calls its methods; what the first one finds counts."""

    plan: Plan
    world: World
    reporter: Reporter
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    guard: Guard

    def begin(self) -> TrainingState:
        """Load what there is to go on from, or given weights, and say where that is. Raises CheckpointError."""
        found = self.newest()
        if found is None:
            self._start_from_given_weights()
            self.reporter.event("training_starts", step=0, world_size=self.world.size)
            return TrainingState(
                numerics_fingerprint=self.plan.numerics.fingerprint, world_size=self.world.size, step=0
            )
        checkpoint, state = found
        self.reporter.event(
            "training_resumes",
            step=state.step,
            checkpoint=checkpoint.path.name,
            world_size=self.world.size,
            world_size_before=state.world_size,
        )
        _log.info("resuming from %s at step %d", checkpoint.path.name, state.step)
        return replace(state, world_size=self.world.size)

    def newest(self) -> tuple[Checkpoint, TrainingState] | None:
        """Load the newest checkpoint; None if there is none. Its state has the world size that it was saved with."""
        found = self.reporter.resume_from() if self.world.is_first else None
        chosen = self.world.broadcast(found[0] if found else None)
        if chosen is None:
            return None
        contents = found[1] if found else patiently(lambda: read_checkpoint(chosen.path))
        return chosen, self._restore(chosen, contents)

    def _restore(self, checkpoint: Checkpoint, contents: dict[str, bytes]) -> TrainingState:
        fingerprint = self.plan.numerics.fingerprint
        state = unpack(contents, self.model, self.optimizer, source=checkpoint.path.name)
        if not self.plan.continues(state.numerics_fingerprint):
            raise CheckpointError(
                f"checkpoint {checkpoint.path} belongs to another plan (numerics {state.numerics_fingerprint[:19]}…, "
                f"this run's are {fingerprint[:19]}…); start a new run, or put the recipe back as it was"
            )
        try:
            if state.grad_scaler is not None:
                self.scaler.load_state_dict(state.grad_scaler)
            if state.guard is not None:
                self.guard.load(state.guard)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"checkpoint {checkpoint.path}: what it holds of loss scaling or of the divergence guard can't be read "
                f"({error!r}); remove it to go on from the one before"
            ) from error
        return replace(state, numerics_fingerprint=fingerprint)

    def _start_from_given_weights(self) -> None:
        weights = self.plan.execution.weights
        if weights is None:
            return
        left_out = start_from_given_weights(self.plan, self.model)
        self.reporter.event("weights_given", path=weights, left_at_random=left_out)
        _log.info("starting from the weights of %s, but for %s", weights, left_out or "none")
