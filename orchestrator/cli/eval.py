"""`dnctl eval`: top-1 and top-5 over a whole validation set, each image exactly once."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, human_time, print_json, stderr
from orchestrator.cli.progress import progress_bar
from orchestrator.errors import CheckpointError, NotFoundError, UsageError
from orchestrator.run.catalogue import find_run, storage_root
from orchestrator.run.checkpoints import (
    Checkpoint,
    is_checkpoint_path,
    list_checkpoints,
    newest_whole,
    read_checkpoint,
    read_metric,
)
from orchestrator.run.directory import RunDirectory

if TYPE_CHECKING:
    from torch import nn

    from orchestrator.data.manifest import Manifest
    from orchestrator.train.assess import Protocol

TIMM = "timm:"


def evaluate_model(
    target: Annotated[
        str, typer.Argument(metavar="RUN|CHECKPOINT|timm:NAME", help="A run, a checkpoint's directory, or a model.")
    ],
    data: Annotated[
        str | None, typer.Option("--data", metavar="ROOT", help="The data set; a run's own if left out.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="timm:NAME only: a state_dict on disk; random ones if left out.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="A run's best checkpoint instead of its newest.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")] = 64,
    json_output: JsonOption = False,
) -> None:
    """Evaluate a run, a checkpoint or a model on a validation set."""
    subject = _timm_model(target, data, weights, batch_size) if target.startswith(TIMM) else None
    if subject is None:
        if weights is not None:
            raise UsageError("--weights goes with timm:NAME; a run and a checkpoint have their own")
        subject = _trained(target, data, best, batch_size)
    _report(subject, json_output=json_output)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is evaluated, on what, and how."""

    name: str
    model: "nn.Module"
    images: "Manifest"
    protocol: "Protocol"


def _timm_model(target: str, data: str | None, weights: Path | None, batch_size: int) -> _Subject:
    from orchestrator.data.index import build_manifest
    from orchestrator.data.loader import available_loader
    from orchestrator.plan.cluster import local_shape
    from orchestrator.plan.plan import EvalTransformPlan
    from orchestrator.recipe.schema import Data
    from orchestrator.train.assess import Protocol, model_with_weights

    if data is None:
        raise UsageError(f"{target} has no data set of its own; add --data /path/to/imagenet")
    with progress_bar("indexing images") as progress:
        images = build_manifest(data, "val", progress=progress)
    defaults = Data()
    return _Subject(
        name=target if weights is None else f"{target} with {weights}",
        model=model_with_weights(target, num_classes=len(images.classes), weights=weights, seed=0),
        images=images,
        protocol=Protocol(
            transform=EvalTransformPlan(**defaults.eval.model_dump()),
            mean=defaults.mean,
            std=defaults.std,
            loader=available_loader(),
            precision="fp32",
            batch_size=batch_size,
            num_threads=local_shape().num_cpus,
        ),
    )


def _trained(target: str, data: str | None, best: bool, batch_size: int) -> _Subject:
    from orchestrator.data.index import build_manifest
    from orchestrator.data.loader import available_loader
    from orchestrator.engine.planning import load_plan
    from orchestrator.plan.cluster import local_shape
    from orchestrator.recipe.load import load_recipe
    from orchestrator.train.assess import Protocol, check_classes, model_of_checkpoint

    run, checkpoint, contents = _find_checkpoint(target, best)
    plan = load_plan(run)
    if plan is None:
        raise NotFoundError(f"run {run.name} has no plan yet; wait until it trains")
    root = data or load_recipe(run.recipe).data.root
    assert root is not None
    with progress_bar("indexing images") as progress:
        images = build_manifest(root, "val", progress=progress)
    model, step = model_of_checkpoint(plan.numerics, contents, source=str(checkpoint))
    check_classes(images, plan.numerics.num_classes, source=run.name)
    return _Subject(
        name=f"{run.name} at step {step}",
        model=model,
        images=images,
        protocol=Protocol(
            transform=plan.numerics.eval_transform,
            mean=plan.numerics.mean,
            std=plan.numerics.std,
            loader=plan.numerics.loader if plan.numerics.loader == "pytorch" else available_loader(),
            precision=plan.numerics.precision,
            batch_size=batch_size,
            num_threads=local_shape().num_cpus,
        ),
    )


def _find_checkpoint(target: str, best: bool) -> tuple[RunDirectory, Path, dict[str, bytes]]:
    """The run, the checkpoint's place and its verified contents."""
    path = Path(target)
    if is_checkpoint_path(path):
        return RunDirectory(path.absolute().parent.parent), path, read_checkpoint(path)
    run = find_run(storage_root(), target)
    if best:
        scored = [(read_metric(checkpoint, "top1"), checkpoint) for checkpoint in list_checkpoints(run.checkpoints)]
        known = [(score, checkpoint.step, checkpoint) for score, checkpoint in scored if score is not None]
        if not known:
            raise NotFoundError(f"run {run.name} has no checkpoint with a validation yet")
        chosen = max(known, key=lambda item: item[:2])[2]
        return run, chosen.path, read_checkpoint(chosen.path)
    faults: list[CheckpointError] = []

    def passed_over(_: Checkpoint, error: CheckpointError) -> None:
        stderr().print(f"passed over: {error}", markup=False, soft_wrap=True)
        faults.append(error)

    found = newest_whole(run.checkpoints, passed_over=passed_over)
    if found is None:
        if faults:
            raise CheckpointError(f"none of the {len(faults)} checkpoints of run {run.name} verifies")
        raise NotFoundError(f"run {run.name} has no checkpoint yet")
    return run, found[0].path, found[1]


def _report(subject: _Subject, *, json_output: bool) -> None:
    from orchestrator.train.assess import assess

    total = subject.images.num_samples
    started_at = perf_counter()
    with progress_bar("evaluating") as progress:
        accuracy = assess(subject.model, subject.images, subject.protocol, on_batch=lambda done: progress(done, total))
    seconds = perf_counter() - started_at
    if json_output:
        print_json(
            {
                "target": subject.name,
                "num_images": accuracy.num_images,
                "correct1": accuracy.correct1,
                "correct5": accuracy.correct5,
                "top1": accuracy.top1,
                "top5": accuracy.top5,
                "loss": accuracy.loss,
                "crops": 1,
                "images_per_s": accuracy.num_images / seconds,
            }
        )
        return
    console().print(f"{subject.name}: {accuracy.num_images} images in {human_time(seconds)}", markup=False)
    console().print(f"top-1 {accuracy.top1:.2f} %  ({accuracy.correct1} right, error {100 - accuracy.top1:.2f} %)")
    console().print(f"top-5 {accuracy.top5:.2f} %  ({accuracy.correct5} right, error {100 - accuracy.top5:.2f} %)")
