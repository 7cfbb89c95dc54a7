"""What a run will take, in time and memory, and what each figure rests on.

A step lasts as long as its busiest rank. Start-up, communication and loading are not counted: a figure is what the
devices alone would need.
"""

import math
from dataclasses import replace

from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.footprint import footprint
from orchestrator.plan.plan import Estimate, Execution, MemoryEstimate, Numerics, Placement, Plan, TimeEstimate
from orchestrator.plan.rates import MeasuredRate, find_rate, known_devices

EVALUATION_SPEEDUP = 3.0
"""Images evaluated in the time of one trained: a forward pass is about a third of forward and backward."""

_SHARE_OF_GPU = 0.8
"""Of a GPU's memory, what a step may be expected to hold: what isn't counted needs the rest."""

_FP32_BYTES = 4
_CAST_BYTES = 2  # autocast keeps the weights in 16 bits besides


def estimate(
    numerics: Numerics,
    execution: Execution,
    placement: Placement,
    cluster: ClusterShape,
    rate: MeasuredRate | None = None,
) -> Estimate:
    """What the run will take.

    rate: measured on the target, such as by a probe; None: looked up in the table of published rates.
    """
    rate = rate or find_rate(numerics, placement, cluster.gpu_type)
    memory = estimate_memory(numerics, execution, placement)
    unknown = [] if rate else [_why_time_is_unknown(numerics, placement, cluster)]
    if memory is None:
        unknown.append(f"Memory is unknown: {numerics.model.name} can't be counted without torch.")
    return Estimate(
        time=estimate_time(numerics, execution, placement, cluster, rate) if rate else None,
        memory=memory,
        unknown=tuple(unknown),
    )


def with_measured_rate(plan: Plan, rate: MeasuredRate, cluster: ClusterShape) -> Plan:
    """The plan with its time estimated from a rate measured on the target."""
    return replace(plan, estimate=estimate(plan.numerics, plan.execution, plan.placement, cluster, rate))


def estimate_time(
    numerics: Numerics, execution: Execution, placement: Placement, cluster: ClusterShape, rate: MeasuredRate
) -> TimeEstimate:
    """How long the run takes if each worker trains at `rate`, scaled linearly to its CPU cores where it has no GPU."""
    cores, basis = _cores_of_worker(placement, cluster), rate.source
    worker_rate = rate.images_per_s
    if rate.num_cores is not None and cores != rate.num_cores:
        worker_rate *= cores / rate.num_cores
        basis += f"; scaled from {rate.num_cores} to {cores:.2g} CPU cores a worker"
    price = execution.price_per_worker_hour
    busiest = max(placement.images_per_rank)
    step_s = busiest / worker_rate
    training_s = numerics.num_train_images / numerics.global_batch_size * step_s
    num_views = numerics.num_val_images * numerics.eval_transform.crops
    evaluation_s = num_views / (placement.world_size * worker_rate * EVALUATION_SPEEDUP)
    total_s = training_s * numerics.epochs + evaluation_s * len(execution.evaluation_steps)
    return TimeEstimate(
        basis=f"{rate.images_per_s:.4g} images/s: {basis}; start-up, communication and loading not counted",
        images_per_s=numerics.global_batch_size / step_s,
        step_s=step_s,
        epoch_h=(training_s + evaluation_s) / 3600,
        total_h=total_s / 3600,
        gpu_hours=total_s / 3600 * placement.world_size * placement.gpus_per_worker,
        money=None if price is None else total_s / 3600 * placement.world_size * price,
    )


def evaluation_s(numerics: Numerics, time: TimeEstimate) -> float:
    """Of one evaluation, by an estimate."""
    training_s = numerics.num_train_images / numerics.global_batch_size * time.step_s
    return max(3600 * time.epoch_h - training_s, 0.0)


def estimate_memory(numerics: Numerics, execution: Execution, placement: Placement) -> MemoryEstimate | None:
    """What one worker holds at its peak; None for networks that can't be counted without torch."""
    architecture = numerics.model.architecture
    if architecture is None:
        return None
    side = numerics.train_transform.image_size
    cost = footprint(architecture, num_classes=numerics.num_classes, image_size=side)
    bytes_per_parameter = 3 * _FP32_BYTES + (0 if numerics.precision == "fp32" else _CAST_BYTES)
    images = math.ceil(largest_micro_batch(numerics, execution, placement) * _batches_held(numerics, execution))
    linear = execution.memory_efficient or numerics.model.block == "fused"  # both keep the same
    activations = cost.activation_bytes_per_image(numerics.precision, memory_efficient=linear)
    image_values = 3 * side**2
    return MemoryEstimate(
        basis="what autograd keeps, counted from the architecture; not counted: workspace of convolutions, Python, "
        "torch and CUDA themselves",
        weights_bytes=cost.num_parameters * bytes_per_parameter,
        activations_bytes=images * activations,
        images_bytes=images * image_values * (execution.prefetch + 1 + _FP32_BYTES),
    )


def _batches_held(numerics: Numerics, execution: Execution) -> float:
    """Recorded steps keep their memory, and an epoch's short last batch, which isn't replayed, takes its own."""
    is_short = numerics.last_batch_size != numerics.global_batch_size
    return 1 + numerics.last_batch_size / numerics.global_batch_size if execution.cuda_graphs and is_short else 1


def one_pass_fits(numerics: Numerics, execution: Execution, placement: Placement, cluster: ClusterShape) -> bool:
    """Whether a GPU has room for all groups of a worker at once, however few workers there may be.

    Only the fused block can do it. Where a GPU's memory isn't known, it isn't tried.
    """
    if placement.device != "cuda" or numerics.model.block != "fused" or cluster.gpu_memory_bytes is None:
        return False
    if numerics.batch_norm_groups <= placement.min_world_size:
        return False
    needed = estimate_memory(numerics, replace(execution, groups_in_one_pass=True), placement)
    return needed is not None and needed.total_bytes <= _SHARE_OF_GPU * cluster.gpu_memory_bytes


def largest_micro_batch(numerics: Numerics, execution: Execution, placement: Placement) -> int:
    """The most images that a worker passes through the network at once."""
    group = math.ceil(numerics.global_batch_size / numerics.batch_norm_groups)
    if execution.groups_in_one_pass:
        return group * math.ceil(numerics.batch_norm_groups / placement.min_world_size)
    fewest_parts = min(share.num_parts for shares in placement.group_shares for share in shares)
    return math.ceil(group / fewest_parts)


def _cores_of_worker(placement: Placement, cluster: ClusterShape) -> float:
    """CPU cores that a worker really has: its threads, or its part of the cores where those are fewer."""
    return min(placement.compute_threads, cluster.num_cpus / placement.world_size)


def _why_time_is_unknown(numerics: Numerics, placement: Placement, cluster: ClusterShape) -> str:
    device = (cluster.gpu_type or "this GPU") if placement.device == "cuda" else "a CPU"
    settings = numerics.precision + (", channels_last" if numerics.channels_last else "")
    known = ", ".join(known_devices(numerics))
    return (
        f"Time is unknown: there is no measured rate of {numerics.model.name} on {device} ({settings})"
        f"{f', only on {known}' if known else ''}. `dnctl plan --probe`, run on such a machine, measures one."
    )
