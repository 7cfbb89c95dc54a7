"""`dnctl eval`: top-1 and top-5 over a whole validation set, each image exactly once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.cli.output import JsonOption, console, human_time, print_json, stderr
from orchestrator.cli.progress import progress_bar
from orchestrator.errors import CheckpointError, NotFoundError, StorageError, UsageError
from orchestrator.plan.networks import TIMM_PREFIX
from orchestrator.run.catalogue import find_run, storage_root
from orchestrator.run.checkpoints import (
    Checkpoint,
    best_checkpoint,
    checkpoint_at,
    is_checkpoint_path,
    newest_whole,
    read_checkpoint,
)
from orchestrator.run.directory import RunDirectory
from orchestrator.run.evaluations import KeptEvaluation, keep_evaluation

if TYPE_CHECKING:
    from torch import nn

    from orchestrator.data.loader import LoaderKind
    from orchestrator.data.manifest import Manifest
    from orchestrator.train.assess import Protocol

VALIDATION = "val"
_CROPS: Mapping[int, Literal[1, 10]] = {1: 1, 10: 10}
EvaluationClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="CLUSTER", help="Evaluate a run or a checkpoint there, on all free GPUs; here if left out."
    ),
]


def evaluate_model(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CHECKPOINT|MODEL",
            help="A run, a checkpoint's directory, timm:NAME, or, with --weights, a name from `dnctl model list`.",
        ),
    ],
    data: Annotated[
        str | None, typer.Option("--data", metavar="ROOT", help="The data set; a run's own if left out.")
    ] = None,
    split: Annotated[
        str, typer.Option("--split", metavar="FOLDER", help="Which folder of the data set; val/ unless said.")
    ] = VALIDATION,
    crops: Annotated[
        int | None,
        typer.Option("--crops", metavar="1|10", help="Crops of each image; the run's or the recipe's if left out."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Of a MODEL: a state_dict of timm, torchvision or ours, or a checkpoint; random ones if left out.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help="Of a MODEL: a recipe that says how images are shown; as ImageNet's are if left out."
        ),
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="A run's best checkpoint instead of its newest.")] = False,
    loader: Annotated[
        str | None, typer.Option("--loader", metavar="dali|pytorch", help="What decodes images, where both could.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images at a time; ten crops of one are ten.")
    ] = 64,
    cluster: EvaluationClusterOption = None,
    json_output: JsonOption = False,
) -> None:
    """Evaluate a run, a checkpoint or a model on a whole validation set, each image once.

    What a run comes to on its own images is kept in it, for `dnctl report`.

    With 10 crops: corners and centre of each image and of its mirror image, outputs summed before the softmax.
    """
    is_model = weights is not None or target.startswith(TIMM_PREFIX)
    if recipe is not None and not is_model:
        raise UsageError("--recipe goes with a model; a run and a checkpoint have their own")
    if is_model and best:
        raise UsageError("--best goes with a run")
    if crops is not None and crops not in _CROPS:
        raise UsageError(f"--crops is {crops}, must be 1 or 10")
    if cluster is not None:
        if is_model:
            raise UsageError("--cluster evaluates a run or a checkpoint; a model of your own is evaluated here")
        asked = None if loader is None else _loader(loader, "pytorch")
        crops_asked = None if crops is None else _CROPS[crops]
        _report_from(cluster, target, data, split, best, crops_asked, asked, batch_size, json_output=json_output)
        return
    subject = _model(target, data, split, weights, recipe) if is_model else _trained(target, data, split, best)
    protocol = replace(subject.protocol, batch_size=batch_size, loader=_loader(loader, subject.protocol.loader))
    if crops is not None:
        protocol = replace(protocol, transform=replace(protocol.transform, crops=_CROPS[crops]))
    _report(replace(subject, protocol=protocol), json_output=json_output)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is evaluated, on what, and how."""

    name: str
    model: "nn.Module"
    images: "Manifest"
    protocol: "Protocol"
    kept_with: Path | None = None
    """The checkpoint whose run keeps what comes of it; None if those aren't its own validation images."""


def _loader(asked_for: str | None, own: "LoaderKind") -> "LoaderKind":
    match asked_for:
        case "dali" | "pytorch":
            return asked_for
        case None:
            return own
    raise UsageError(f"--loader is {asked_for}, must be dali or pytorch")


def _model(target: str, data: str | None, split: str, weights: Path | None, recipe: str | None) -> _Subject:
    from orchestrator.data.index import build_manifest
    from orchestrator.data.loader import available_loader
    from orchestrator.plan.cluster import local_shape
    from orchestrator.plan.plan import EvalTransformPlan
    from orchestrator.recipe.load import load_recipe
    from orchestrator.recipe.schema import Data
    from orchestrator.train.assess import Protocol, model_with_weights

    shown = Data() if recipe is None else load_recipe(recipe).data
    root = data or shown.root
    if root is None:
        raise UsageError(f"{target} has no data set of its own; add --data /path/to/imagenet")
    with progress_bar("indexing images") as progress:
        images = build_manifest(root, split, progress=progress)
    return _Subject(
        name=f"{target} with random weights" if weights is None else f"{target} with {weights}",
        model=model_with_weights(target, num_classes=len(images.classes), weights=weights, seed=0),
        images=images,
        protocol=Protocol(
            transform=EvalTransformPlan(**shown.eval.model_dump()),
            mean=shown.mean,
            std=shown.std,
            loader=available_loader(),
            precision="fp32",
            batch_size=1,
            num_threads=local_shape().num_cpus,
        ),
    )


def _trained(target: str, data: str | None, split: str, best: bool) -> _Subject:
    from orchestrator.data.index import build_manifest
    from orchestrator.engine.planning import load_plan
    from orchestrator.plan.cluster import local_shape
    from orchestrator.recipe.load import load_recipe
    from orchestrator.train.assess import check_classes, model_of_checkpoint, protocol_of

    run, checkpoint, contents = _find_checkpoint(target, best)
    plan = load_plan(run)
    if plan is None:
        raise NotFoundError(f"run {run.name} has no plan yet; wait until it trains")
    root = data or load_recipe(run.recipe).data.root
    assert root is not None
    with progress_bar("indexing images") as progress:
        images = build_manifest(root, split, progress=progress)
    model, step = model_of_checkpoint(plan.numerics, contents, source=str(checkpoint))
    check_classes(images, plan.numerics.num_classes, source=run.name)
    return _Subject(
        name=f"{run.name} at step {step}",
        model=model,
        images=images,
        kept_with=checkpoint if _are_its_own(data, split) else None,
        protocol=protocol_of(plan.numerics, crops=None, loader=None, batch_size=1, num_threads=local_shape().num_cpus),
    )


def _report_from(
    cluster: str,
    target: str,
    data: str | None,
    split: str,
    best: bool,
    crops: Literal[1, 10] | None,
    loader: "LoaderKind | None",
    batch_size: int,
    *,
    json_output: bool,
) -> None:
    """Evaluate on a cluster, to which the storage of runs and the data are known by the same paths."""
    from orchestrator.engine.clusters import named_cluster, started_local_cluster
    from orchestrator.engine.evaluation import EvaluationTask, evaluate_on
    from orchestrator.recipe.load import load_recipe

    named = named_cluster(cluster)
    if named is not None:
        named.refuse_other_storage(storage_root())
    run, checkpoint, _ = _find_checkpoint(target, best)
    root = data or load_recipe(run.recipe).data.root
    assert root is not None
    task = EvaluationTask(
        checkpoint=str(checkpoint.absolute()),
        root=root if "://" in root else str(Path(root).absolute()),
        split=split,
        crops=crops,
        loader=loader,
        batch_size=batch_size,
    )
    with stderr().status(f"evaluating on {cluster}"):
        answer = evaluate_on(named or started_local_cluster(), task)
    if _are_its_own(data, split):
        _keep(checkpoint, answer["crops"], answer["num_images"], answer["correct1"], answer["correct5"])
    name = f"{run.name}, {checkpoint.name}"
    if json_output:
        print_json({"target": name, **answer, "images_per_s": answer["num_images"] / answer["seconds"]})
        return
    counted = f"{answer['num_images']} images, {answer['crops']} crop{'' if answer['crops'] == 1 else 's'} each"
    on = f"{answer['workers']} {'GPU' if answer['device'] == 'cuda' else 'CPU worker'}"
    console().print(
        f"{name}: {counted}, in {human_time(answer['seconds'])} on {on}{'' if answer['workers'] == 1 else 's'}",
        markup=False,
    )
    _print_accuracies(answer["top1"], answer["correct1"], answer["top5"], answer["correct5"])


def _are_its_own(data: str | None, split: str) -> bool:
    return data is None and split == VALIDATION


def _keep(checkpoint: Path, crops: int, num_images: int, correct1: int, correct5: int) -> None:
    """Leave it in the run, for `dnctl report`; where one may only read, say so and go on."""
    run = RunDirectory(checkpoint.absolute().parent.parent)
    step = checkpoint_at(checkpoint).step
    kept = KeptEvaluation(
        checkpoint=checkpoint.name,
        step=step,
        crops=crops,
        num_images=num_images,
        correct1=correct1,
        correct5=correct5,
    )
    try:
        keep_evaluation(run.evaluations, kept)
    except StorageError as error:
        stderr().print(f"not kept for `dnctl report`: {error}", markup=False, soft_wrap=True)


def _print_accuracies(top1: float, correct1: int, top5: float, correct5: int) -> None:
    console().print(f"top-1 {top1:.2f} %  ({correct1} right, error {100 - top1:.2f} %)")
    console().print(f"top-5 {top5:.2f} %  ({correct5} right, error {100 - top5:.2f} %)")


def _find_checkpoint(target: str, best: bool) -> tuple[RunDirectory, Path, dict[str, bytes]]:
    """The run, the checkpoint's place and its verified contents."""
    path = Path(target)
    if is_checkpoint_path(path):
        return RunDirectory(path.absolute().parent.parent), path, read_checkpoint(path)
    run = find_run(storage_root(), target)
    if best:
        chosen = best_checkpoint(run.checkpoints, "top1")
        if chosen is None:
            raise NotFoundError(f"run {run.name} has no checkpoint with a validation yet")
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
    crops = subject.protocol.transform.crops
    if subject.kept_with is not None:
        _keep(subject.kept_with, crops, accuracy.num_images, accuracy.correct1, accuracy.correct5)
    if json_output:
        print_json(
            {
                "target": subject.name,
                **accuracy.to_json(),
                "crops": crops,
                "loader": subject.protocol.loader,
                "images_per_s": accuracy.num_images / seconds,
            }
        )
        return
    shown = f"{accuracy.num_images} images, {crops} crop{'' if crops == 1 else 's'} each, in {human_time(seconds)}"
    console().print(f"{subject.name}: {shown}", markup=False)
    _print_accuracies(accuracy.top1, accuracy.correct1, accuracy.top5, accuracy.correct5)
