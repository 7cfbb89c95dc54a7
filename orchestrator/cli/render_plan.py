"""A plan as a person reads it, for `dnctl plan` and `dnctl launch --dry-run`."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.cli.output import human_bytes, human_time
from orchestrator.plan.architecture import DenseNetArchitecture
from orchestrator.plan.groups import GroupShare
from orchestrator.plan.plan import (
    EvalTransformPlan,
    Execution,
    MemoryEstimate,
    Numerics,
    Placement,
    Plan,
    TimeEstimate,
    TrainTransformPlan,
)

Row = tuple[str, str]

_BAR_WIDTH = 24
_MOST_RANKS_LISTED = 8


def render_plan(plan: Plan, *, forecast: Sequence[Row] = ()) -> RenderableType:
    """The arithmetic, the schedule, the estimates, a forecast if asked for, what is unknown, and the fingerprints."""
    numerics, placement = plan.numerics, plan.placement
    estimate = plan.estimate
    sections = {
        "Work": _rows([*_work(numerics), *_workers(placement)]),
        "Network and images": _rows([*_network(numerics, plan.execution), *_images(numerics)]),
        "Learning rate": _learning_rates(plan),
        "Evaluated and saved": _rows(_points(plan.execution)),
        "Estimate": _rows([*_time(estimate.time), *_memory(estimate.memory), *_limits(plan.execution)]),
        **({"Forecast": _rows(forecast)} if forecast else {}),
        "Fingerprints (SHA-256)": _rows((part, digest.split(":")[1]) for part, digest in plan.fingerprints.items()),
    }
    if plan.deviations:
        sections["Deviations"] = _rows(
            (f"from step {deviation.step:,}", f"{key} was {was}, is {now}")
            for deviation in plan.deviations
            for key, was, now in deviation.changes
        )
    sentences = [*estimate.unknown, *plan.notes]
    if sentences:
        sections["Notes"] = _rows(("-", sentence) for sentence in sentences)
    return Group(*(_section(title, content) for title, content in sections.items()))


def _section(title: str, content: Table) -> RenderableType:
    return Group(Text(title, style="bold"), Padding(content, (0, 0, 1, 2)))


def _rows(rows: Iterable[Row]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(Text(label), Text(text))
    return table


def _work(numerics: Numerics) -> Iterator[Row]:
    yield (
        "images",
        f"{numerics.num_train_images:,} to train on, {numerics.num_val_images:,} to validate on, "
        f"{numerics.num_classes:,} classes",
    )
    if numerics.num_test_images:
        yield (
            "held out",
            f"the {numerics.num_held_out_images:,} to validate on, drawn from train/ by the seed; val/ is a test set "
            f"of {numerics.num_test_images:,}, touched once, at the end",
        )
    batch, groups = numerics.global_batch_size, numerics.batch_norm_groups
    small, larger = divmod(batch, groups)
    sizes = f"{small}" if not larger else f"{small} or {small + 1}"
    yield "batch", f"{batch} images in {groups} batch-norm group{_s(groups)} of {sizes}"
    epochs = numerics.epochs
    yield "steps", f"{numerics.steps_per_epoch:,} an epoch, {numerics.num_steps:,} in {epochs} epoch{_s(epochs)}"
    if numerics.last_batch_size < batch:
        yield (
            "last step",
            f"of each epoch: {numerics.last_batch_size} images, kept and trained on, split over the groups as evenly "
            "as can be, each image weighing the same",
        )


def _workers(placement: Placement) -> Iterator[Row]:
    gpus = f"{placement.gpus_per_worker} GPU, " if placement.gpus_per_worker else ""
    cpus = placement.cpus_per_worker
    low, high = placement.min_world_size, placement.max_world_size
    between = f" ({low} to {high} while it runs)" if low < high else ""
    yield (
        "workers",
        f"{placement.world_size}{between}, each with {gpus}{cpus} CPU core{_s(cpus)} and {_threads(placement)}",
    )
    for rank, shares in enumerate(placement.group_shares[:_MOST_RANKS_LISTED]):
        yield f"rank {rank}", f"{_shares(shares)}: {placement.images_per_rank[rank]} images of a step"
    if placement.world_size > _MOST_RANKS_LISTED:
        yield "…", f"and so on, to rank {placement.world_size - 1}"


def _threads(placement: Placement) -> str:
    return f"{placement.compute_threads} thread{_s(placement.compute_threads)} to compute"


def _shares(shares: tuple[GroupShare, ...]) -> str:
    if not shares:
        return "nothing to train on"
    if shares[0].num_parts > 1:
        share = shares[0]
        return f"part {share.part + 1} of {share.num_parts} of group {share.group}"
    groups = [str(share.group) for share in shares]
    return f"group {groups[0]}" if len(groups) == 1 else f"groups {', '.join(groups)}, one after another"


def _network(numerics: Numerics, execution: Execution) -> Iterator[Row]:
    model = numerics.model
    parts = [model.name, f"{model.init}' initial weights" if model.init == "authors" else "timm's initial weights"]
    parts.append(f"dropout {model.drop_rate:g}" if model.drop_rate else "no dropout")
    parts += [f"stochastic depth {model.stochastic_depth:g}"] if model.stochastic_depth else []
    parts += [f"{key}={value}" for key, value in model.options]
    parts += [f"{model.block} blocks"] if isinstance(model.architecture, DenseNetArchitecture) else []
    parts += ["recomputing activations"] if execution.memory_efficient else []
    yield "network", ", ".join(parts)
    if execution.weights is not None:
        yield "starts from", execution.weights
    parts = [numerics.precision]
    parts += ["channels_last"] if numerics.channels_last else []
    parts.append("deterministic" if numerics.deterministic else "not deterministic")
    yield "arithmetic", ", ".join(parts)
    optimizer = numerics.optimizer
    parts = [f"SGD, {'Nesterov ' if optimizer.nesterov else ''}momentum {optimizer.momentum:g}"]
    parts.append(f"weight decay {optimizer.weight_decay:g}")
    parts += [f"label smoothing {numerics.label_smoothing:g}"] if numerics.label_smoothing else []
    parts += [f"gradients clipped to norm {numerics.clip_grad_norm:g}"] if numerics.clip_grad_norm else []
    yield "optimiser", ", ".join(parts)
    yield "seed", str(numerics.seed)


def _images(numerics: Numerics) -> Iterator[Row]:
    yield "training", ", ".join(_augmentation(numerics.train_transform))
    yield "validation", ", ".join(_shown(numerics.eval_transform))
    loader = {"dali": "DALI", "pytorch": "PyTorch reference loader"}[numerics.loader]
    yield "loader", f"{loader}, {numerics.decoder} decoding"


def _augmentation(train: TrainTransformPlan) -> Iterator[str]:
    if train.crop == "pad":
        padded = f" of the image padded by {train.padding} px" if train.padding else " of the image"
        yield f"{train.image_size} px{padded}"
    else:
        yield f"{train.crop} crop of {train.scale[0]:.0%} to {train.scale[1]:.0%} of the image"
        yield f"{train.interpolation} to {train.image_size} px"
    yield f"mirrored {train.mirror:.0%}" if train.mirror else "not mirrored"
    if train.color is not None:
        yield f"colours jittered by up to {train.color.jitter:.0%}, lighting noise {train.color.lighting:g}"


def _shown(evaluation: EvalTransformPlan) -> Iterator[str]:
    if evaluation.resize is not None:
        yield f"short side {evaluation.interpolation} to {evaluation.resize} px"
    yield f"centre {evaluation.crop} px" if evaluation.crops == 1 else f"ten crops of {evaluation.crop} px"


def _learning_rates(plan: Plan) -> Table:
    table = Table.grid(padding=(0, 2))
    for heading in ("epochs", "steps", "rate", ""):
        table.add_column(header=heading, justify="left" if heading == "" else "right", no_wrap=True)
    table.add_row(*(Text(heading, style="dim") for heading in ("epochs", "steps", "rate", "")))
    highest = max(max(segment.first_lr, segment.last_lr) for segment in plan.learning_rates)
    for segment in plan.learning_rates:
        first, end = (step / plan.numerics.steps_per_epoch for step in (segment.first_step, segment.last_step + 1))
        is_constant = segment.first_lr == segment.last_lr
        rate = f"{segment.last_lr:.6g}" if is_constant else f"{segment.first_lr:.3g} to {segment.last_lr:.3g}"
        bar = "█" * max(1, round(segment.last_lr / highest * _BAR_WIDTH))
        table.add_row(f"{first:.4g} to {end:.4g}", f"{segment.first_step:,} to {segment.last_step:,}", rate, bar)
    return table


def _points(execution: Execution) -> list[Row]:
    evaluations, every = len(execution.evaluation_steps), execution.eval_every_epochs
    minutes = execution.checkpoint_every_minutes
    best = f", and the best {execution.keep_best} by top-1" if execution.keep_best else ""
    within = f", and every {minutes:g} minutes within" if isinstance(minutes, float) else ""
    if minutes == "auto":
        within = ", and within as often as loses least time"
    return [
        ("evaluated", f"after {_epochs(every)}, {evaluations} time{_s(evaluations)}; by top-1 and top-5"),
        ("saved", f"after {_epochs(execution.checkpoint_every_epochs)}{within}"),
        ("kept", f"the last {execution.keep_last} checkpoint{_s(execution.keep_last)}{best}"),
        ("logged", f"every {execution.log_every_steps} steps"),
    ]


def _time(time: TimeEstimate | None) -> Iterator[Row]:
    if time is None:
        yield "time", "unknown, see the notes"
        return
    gpu_hours = f", {time.gpu_hours:,.1f} GPU hours" if time.gpu_hours else ""
    money = f", {time.money:,.2f} of money" if time.money is not None else ""
    yield (
        "time",
        f"about {human_time(time.total_h * 3600)} in all, {human_time(time.epoch_h * 3600)} an epoch{gpu_hours}{money}",
    )
    yield "rate", f"{time.images_per_s:,.0f} images/s, {time.step_s:.3g} s a step"
    yield "", f"rests on {time.basis}"


def _memory(memory: MemoryEstimate | None) -> Iterator[Row]:
    if memory is None:
        yield "memory", "unknown, see the notes"
        return
    yield (
        "memory",
        f"about {human_bytes(memory.total_bytes)} a worker: weights, gradients and momentum "
        f"{human_bytes(memory.weights_bytes)}, activations {human_bytes(memory.activations_bytes)}, images "
        f"{human_bytes(memory.images_bytes)}",
    )
    yield "", f"rests on {memory.basis}"


def _limits(execution: Execution) -> Iterator[Row]:
    said = []
    if execution.max_hours is not None:
        said.append(f"{execution.max_hours:g} hours with workers")
    if execution.max_money is not None:
        said.append(f"{execution.max_money:g} of money, at {execution.price_per_worker_hour:g} a worker and hour")
    if said:
        yield "limits", f"stopped with a checkpoint after {' or '.join(said)}, over all attempts"


def _epochs(every: int) -> str:
    return "every epoch" if every == 1 else f"every {every} epochs and at the end"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
