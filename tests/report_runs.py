"""Run directories as `dnctl report` finds them: with a real plan, curves, events and, if need be, a checkpoint."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import safetensors.numpy

from orchestrator.engine.planning import write_plan, write_recipe
from orchestrator.plan.architecture import DenseNetArchitecture
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.plan import Deviation, Plan
from orchestrator.plan.resolve import resolve
from orchestrator.recipe.load import load_recipe
from orchestrator.run import files
from orchestrator.run.checkpoints import checkpoint_path, write_checkpoint
from orchestrator.run.contents import MODEL, OPTIMIZER, STATE
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.progress import Progress, write_progress
from orchestrator.run.segments import segment_path
from orchestrator.run.state import State, write_state

CPU = ("cluster.workers=1", "cluster.gpus_per_worker=0")


def make_plan(recipe: str, *overrides: str) -> Plan:
    """The plan of a recipe that ships with dnctl, for the data that it expects."""
    return resolve(
        load_recipe(recipe, [*CPU, *overrides]),
        cluster=ClusterShape(num_cpus=1),
        dataset=None,
        versions={},
        loader_available="pytorch",
    )


def make_run(
    root: Path,
    name: str,
    recipe: str,
    *overrides: str,
    state: State = State.SUCCEEDED,
    epochs_done: int | None = None,
    final_error: float = 5.0,
    test_error: float | None = None,
    deviations: Sequence[Deviation] = (),
    weights: Mapping[str, np.ndarray] | None = None,
    interrupted_at: float | None = None,
) -> RunDirectory:
    """A run that went on for so many epochs, all of them if None, and came to that top-1 error, in percent.

    interrupted_at: the share of the epochs after which its node went away; it went on in a second attempt.
    """
    plan = replace(make_plan(recipe, *overrides), deviations=tuple(deviations))
    run = RunDirectory(root / name)
    run.create(now=time() - 1000)
    write_recipe(run, load_recipe(recipe, [*CPU, *overrides]))
    write_plan(run, plan)
    epochs = plan.numerics.epochs if epochs_done is None else epochs_done
    edge = epochs if interrupted_at is None else max(1, round(epochs * interrupted_at))
    for first, last in [(0, edge), (edge, epochs)] if edge < epochs else [(0, epochs)]:
        attempt = run.claim_attempt("holder")
        events = [_beginning(plan, first, attempt)]
        for epoch in range(first + 1, last + 1):
            events.append(_evaluated(plan, epoch, _error(final_error, epoch / max(epochs, 1))))
        if last < epochs:
            events.append({"time": time(), "event": "paused", "step": last * plan.numerics.steps_per_epoch})
            files.write_json(attempt.pause_request, {"reason": "preemption announced: node n goes away", "asked_at": 1})
        elif test_error is not None:
            events.append({**_evaluated(plan, epochs, test_error), "event": "tested"})
        write_log(attempt, "events", events)
        write_log(attempt, "metrics", _metrics(plan, first, last, epochs))
        write_progress(attempt.progress, _progress(plan, first, last))
    if weights is not None:
        step = epochs * plan.numerics.steps_per_epoch
        path = checkpoint_path(run.checkpoints, step=step, attempt=1)
        tensors = {MODEL: dict(weights), OPTIMIZER: {}}
        contents = {name: safetensors.numpy.save(each) for name, each in tensors.items()}
        contents[STATE] = json.dumps({"step": step}).encode()
        write_checkpoint(path, contents, metrics={}, may_commit=lambda: None)
    finished_at = time() if state.is_finished else None
    record = replace(run.read_state(), state=state, reason="reason", attempt=len(run.attempts()), updated_at=time())
    write_state(run.state, replace(record, finished_at=finished_at, exit_code=0 if finished_at else None))
    return run


def write_log(attempt: AttemptDirectory, prefix: str, rows: Sequence[Mapping[str, Any]]) -> None:
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    files.write_atomically(segment_path(attempt.path, prefix, 0), content)


def _beginning(plan: Plan, epoch: int, attempt: AttemptDirectory) -> dict[str, Any]:
    step = epoch * plan.numerics.steps_per_epoch
    event = {"time": time(), "event": "training_resumes" if step else "training_starts", "step": step, "world_size": 1}
    return {**event, "checkpoint": f"step-{step:08d}.{attempt.number - 1}"} if step else event


def _error(final: float, share: float) -> float:
    return final + (90 - final) * math.exp(-6 * share)


def _evaluated(plan: Plan, epoch: int, error: float) -> dict[str, Any]:
    step = epoch * plan.numerics.steps_per_epoch
    event = {"time": time(), "event": "evaluated", "epoch": epoch, "step": step, "loss": error / 20}
    return {**event, "top1": 100.0 - error, "top5": 100.0 - error / 5}


def _metrics(plan: Plan, first: int, last: int, epochs: int) -> list[dict[str, Any]]:
    numerics, rows = plan.numerics, []
    wiggle = 0.05 * (1 + numerics.seed % 3)
    for tenth in range(10 * first + 1, 10 * last + 1):
        step = tenth * numerics.steps_per_epoch // 10
        share = tenth / (10 * epochs)
        loss = 0.05 + 2.3 * math.exp(-5 * share) * (1 + wiggle * math.sin(tenth))
        row = {"time": time(), "step": step, "loss": loss, "learning_rate": numerics.schedule.at(step - 1)}
        rows.append({**row, "images_per_s": 900.0 + 30 * math.sin(tenth), "train_top1": 100 - _error(1.0, share)})
    return rows


def _progress(plan: Plan, first: int, last: int) -> Progress:
    numerics = plan.numerics
    return Progress(
        step=last * numerics.steps_per_epoch,
        first_step=first * numerics.steps_per_epoch,
        num_steps=numerics.num_steps,
        epoch=last,
        num_epochs=numerics.epochs,
        steps_per_epoch=numerics.steps_per_epoch,
        world_size=1,
        at=time() - 10,
        seconds={"data": 20.0, "compute": 200.0, "communication": 10.0, "checkpoint": 3.0, "evaluation": 8.0},
    )


def densenet_weights(architecture: DenseNetArchitecture, *, num_classes: int = 10) -> dict[str, np.ndarray]:
    """Weights of every convolution behind the first and of the classifier, by their names."""
    random = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}

    def draw(name: str, *shape: int) -> None:
        weights[name] = random.normal(size=shape).astype(np.float32)

    growth, width = architecture.growth_rate, architecture.bn_size * architecture.growth_rate
    for number, block in enumerate(architecture.blocks(), start=1):
        for layer in range(block.num_layers):
            prefix, channels = f"features.denseblock{number}.denselayer{layer + 1}", block.in_channels + layer * growth
            draw(f"{prefix}.conv1.weight", *((width, channels, 1, 1) if width else (growth, channels, 3, 3)))
            if width:
                draw(f"{prefix}.conv2.weight", growth, width, 3, 3)
        if block.transition_channels is not None:
            draw(f"features.transition{number}.conv.weight", block.transition_channels, block.out_channels, 1, 1)
    draw("classifier.weight", num_classes, architecture.num_features)
    return weights
