"""What a forecast starts from: a plan, what a run like it took, and what is assumed where neither says."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import PlanError
from orchestrator.plan.estimate import evaluation_s
from orchestrator.plan.footprint import footprint
from orchestrator.plan.forecast import Costs, Nodes
from orchestrator.plan.placement import at_world_size
from orchestrator.plan.plan import Plan

ASSUMED_START_S = 60.0
ASSUMED_RESTART_S = 60.0
ASSUMED_COPY_BYTES_PER_S = 2e9
"""From a device to the host's memory."""
ASSUMED_WRITE_BYTES_PER_S = 200e6
"""Packing, hashing and writing to a shared filesystem."""
ASSUMED_CHECKPOINT_BYTES = 200e6
"""Of networks whose parameters can't be counted without torch."""
BYTES_PER_PARAMETER = 8
"""Weights and momentum, in fp32."""
GPUS_PER_NODE = 8
"""Where nobody says how many nodes there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run was seen to take."""

    source: str
    """The run's name."""
    step_s: float
    busiest_images: int
    """Images a step of the worker that had most of them."""
    evaluation_s: float | None
    hold_s: float | None
    write_s: float | None
    start_s: float | None
    restart_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The costs of a run, and where each figure comes from."""

    costs: Costs
    sources: tuple[str, ...]
    """Sentences."""


def basis_of(plan: Plan, measured: Measured | None) -> Basis:
    """What a plan's run takes. Raises PlanError if nobody knows how long a step takes."""
    numerics, execution = plan.numerics, plan.execution
    step_s, evaluation, sources = _step_and_evaluation_s(plan, measured)
    hold_s, write_s, saving = _saving(plan, measured)
    start_s, restart_s, starting = _starting(measured)
    training_s = numerics.num_train_images / numerics.global_batch_size * step_s * numerics.epochs
    work_s = training_s + evaluation * len(execution.evaluation_steps)
    costs = Costs(
        work_s=work_s,
        epoch_s=work_s / numerics.epochs * execution.checkpoint_every_epochs,
        step_s=step_s,
        hold_s=hold_s,
        write_s=write_s,
        start_s=start_s,
        restart_s=restart_s,
    )
    return Basis(costs=costs, sources=(*sources, *saving, *starting))


def _step_and_evaluation_s(plan: Plan, measured: Measured | None) -> tuple[float, float, Sequence[str]]:
    if measured is not None:
        scale = max(plan.placement.images_per_rank) / measured.busiest_images
        scaled = "" if scale == 1 else ", scaled to the images of the busiest worker"
        return scale * measured.step_s, measured.evaluation_s or 0.0, [f"steps as {measured.source} took{scaled}"]
    time = plan.estimate.time
    if time is None:
        raise PlanError(
            "a forecast needs to know how long a step takes, and nobody has measured it: name a run like it with "
            "--like RUN, or measure here with --probe"
        )
    return time.step_s, evaluation_s(plan.numerics, time), [f"steps as estimated: {time.basis}"]


def _saving(plan: Plan, measured: Measured | None) -> tuple[float, float, Sequence[str]]:
    if measured is not None and measured.hold_s is not None and measured.write_s is not None:
        return measured.hold_s, measured.write_s, [f"checkpoints as {measured.source} took"]
    num_bytes = _checkpoint_bytes(plan)
    sentence = (
        f"checkpoints of {num_bytes / 1e6:,.0f} MB assumed to be copied at {ASSUMED_COPY_BYTES_PER_S / 1e9:g} GB/s and "
        f"written behind the steps at {ASSUMED_WRITE_BYTES_PER_S / 1e6:g} MB/s"
    )
    return num_bytes / ASSUMED_COPY_BYTES_PER_S, num_bytes / ASSUMED_WRITE_BYTES_PER_S, [sentence]


def _checkpoint_bytes(plan: Plan) -> float:
    architecture = plan.numerics.model.architecture
    if architecture is None:
        return ASSUMED_CHECKPOINT_BYTES
    side = plan.numerics.train_transform.image_size
    cost = footprint(architecture, num_classes=plan.numerics.num_classes, image_size=side)
    return float(BYTES_PER_PARAMETER * cost.num_parameters)


def _starting(measured: Measured | None) -> tuple[float, float, Sequence[str]]:
    start_s = measured.start_s if measured is not None else None
    restart_s = measured.restart_s if measured is not None else None
    sentences = []
    if start_s is None or restart_s is None:
        assumed = [f"{ASSUMED_START_S:g} s from launch to the first step"] if start_s is None else []
        assumed += [f"{ASSUMED_RESTART_S:g} s from a failure to the next step"] if restart_s is None else []
        sentences.append(" and ".join(assumed) + " assumed")
    if measured is not None and (start_s is not None or restart_s is not None):
        what = [name for name, known in (("start", start_s), ("restart", restart_s)) if known is not None]
        sentences.append(f"{' and '.join(what)} as {measured.source} took")
    return (
        ASSUMED_START_S if start_s is None else start_s,
        ASSUMED_RESTART_S if restart_s is None else restart_s,
        sentences,
    )


def nodes_of(plan: Plan, *, count: int, mtbf_s: float, notice_s: float, replacement_s: float) -> Nodes:
    """The nodes of a plan's run: where the world size may change it goes on with fewer of them, otherwise it waits."""
    placement = plan.placement
    busiest = max(placement.images_per_rank)
    speeds = [0.0]
    for number in range(1, count + 1):
        workers = placement.world_size * number // count
        waits = workers < placement.min_world_size or workers == 0
        images = 0 if waits else max(at_world_size(plan, workers).placement.images_per_rank)
        speeds.append(busiest / images if images else 0.0)
    return Nodes(
        count=count,
        mtbf_s=mtbf_s,
        notice_s=notice_s,
        replacement_s=replacement_s,
        speeds=tuple(speeds),
        resize_s=placement.resize_s,
    )
