"""The plan: every number that a run uses, fixed before its first worker starts.

`numerics` decides what is computed; it is chosen once and enforced on resume. `execution` decides how it is carried
out and `placement` where; both may change while a run lives. Each field is read by the training loop, the engine or
the printed plan, and nothing that they need is computed anew from the recipe.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import StorageError
from orchestrator.plan.architecture import DenseNetArchitecture
from orchestrator.plan.groups import GroupShare
from orchestrator.plan.residual import ResidualArchitecture
from orchestrator.plan.schedule import LearningRateSchedule, LearningRateSegment
from orchestrator.plan.version import FORMAT_VERSION

Precision = Literal["fp32", "bf16", "fp16"]
Block = Literal["reference", "fused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorPlan:
    """Random change of colours; the fields of `data.ColorTransform`."""

    jitter: float
    lighting: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTransformPlan:
    """Augmentation of training images; the fields of `data.TrainTransform`."""

    image_size: int
    crop: Literal["torch", "torchvision", "pad"]
    scale: tuple[float, float]
    ratio: tuple[float, float]
    interpolation: Literal["bilinear", "bicubic"]
    padding: int
    fill: tuple[int, int, int]
    """The data's mean colour in 8 bits, which the authors' code pads with: by zeros, after the mean is taken out."""
    mirror: float
    color: ColorPlan | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalTransformPlan:
    """What is shown of validation images; the fields of `data.EvalTransform`."""

    resize: int | None
    crop: int
    interpolation: Literal["bilinear", "bicubic"]
    crops: Literal[1, 10]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """The network, as `models.create_model` takes it; its classes are the data's, in `Numerics`."""

    name: str
    """In full: a family's network is named by its depth and width, however the recipe put it."""
    architecture: DenseNetArchitecture | ResidualArchitecture | None
    """None for timm's own models."""
    options: tuple[tuple[str, bool | int | float | str], ...]
    """Arguments of timm's own models."""
    drop_rate: float
    stochastic_depth: float
    init: Literal["authors", "timm"]
    block: Block
    """What computes a DenseNet's blocks: as the paper writes them, or fused (docs/performance.md)."""
    weights_sha256: str | None
    """Of the weights that the run starts from; None for random ones."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes the network, by the names of create_model's arguments; classes, seed and recomputation apart."""
        shape = dict(self.options) if self.architecture is None else asdict(self.architecture)
        return {
            "name": self.name,
            "drop_rate": self.drop_rate,
            "stochastic_depth": self.stochastic_depth,
            "init": self.init,
            "block": self.block,
            **shape,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerPlan:
    """SGD without dampening; weight decay applies to every parameter."""

    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """Everything that the trained weights depend on, whatever machines the run is on."""

    seed: int
    data_fingerprint: str | None
    """None while the data has not been read; `dnctl launch` always knows it."""
    num_train_images: int
    num_val_images: int
    num_held_out_images: int
    """Of the folder train/, what is validated on instead of trained on; drawn by the seed."""
    num_test_images: int
    """Of the folder val/, where images are held out; otherwise 0."""
    num_classes: int
    loader: Literal["dali", "pytorch"]
    decoder: Literal["cpu", "mixed"]
    train_transform: TrainTransformPlan
    eval_transform: EvalTransformPlan
    mean: tuple[float, float, float]
    """Of values in [0, 1], by channel: red, green, blue."""
    std: tuple[float, float, float]
    model: ModelPlan
    epochs: int
    global_batch_size: int
    batch_norm_groups: int
    steps_per_epoch: int
    last_batch_size: int
    """Images in the last step of an epoch; the global batch size where it divides the data."""
    num_steps: int
    precision: Precision
    channels_last: bool
    deterministic: bool
    optimizer: OptimizerPlan
    milestones_steps: tuple[int, ...]
    gamma: float
    warmup_steps: int
    label_smoothing: float
    clip_grad_norm: float | None
    guard_policy: Literal["rollback", "skip", "stop"]
    guard_spike: float | None
    """Robust deviations above the median of recent steps."""

    @property
    def fingerprint(self) -> str:
        """'sha256:…' of all fields; equal fingerprints mean the same computation."""
        return _fingerprint(self)

    @property
    def schedule(self) -> LearningRateSchedule:
        """The learning rate of each step."""
        return LearningRateSchedule(
            base_lr=self.optimizer.lr,
            milestones_steps=self.milestones_steps,
            gamma=self.gamma,
            warmup_steps=self.warmup_steps,
        )

    def differences(self, other: "Numerics") -> list[tuple[str, Any, Any]]:
        """(dotted key, our value, the other's value) of each field that differs."""
        ours, theirs = dict(_leaves(asdict(self))), dict(_leaves(asdict(other)))
        keys = [*ours, *(key for key in theirs if key not in ours)]
        return [(key, ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How the run is carried out, without effect on what it computes."""

    log_every_steps: int
    eval_every_epochs: int
    eval_batch_size: int
    """Images of one worker at a time."""
    evaluation_steps: tuple[int, ...]
    """Evaluated when this many optimiser steps are done; the last is the run's last step."""
    checkpoint_every_epochs: int
    checkpoint_every_minutes: float | Literal["auto"] | None
    mtbf_hours: float
    """Expected time between failures, from which "auto" takes the time between checkpoints."""
    on_save_failure: Literal["continue", "stop"]
    checkpoint_steps: tuple[int, ...]
    """Saved when this many optimiser steps are done, besides the saves by the clock; the last is the run's end."""
    keep_last: int
    keep_best: int
    test_weights: Literal["last", "best"]
    """Which weights the test set is shown at the end, where images are held out."""
    weights: str | None
    """Where the weights are that the run starts from."""
    memory_efficient: bool
    groups_in_one_pass: bool
    """Whether a worker passes all of its batch-norm groups through the network at once; the sums of their gradients
    then differ in rounding with the number of workers."""
    loader_threads: int
    """Of one worker."""
    prefetch: int
    """Micro-batches that the loader prepares ahead."""
    cache_dir: str | None
    """Where a node keeps copies of shards; None: in the user's cache folder."""
    cache_bytes: int
    """The most that these copies take on a node; 0 for none."""
    max_failures: int
    hang_s: float
    """Without a step for so long a worker counts as hung."""
    guard_max_tries: int
    """Bad steps of one epoch that are put up with."""
    max_hours: float | None
    """Of all attempts together, with workers; likewise the next."""
    max_money: float | None
    price_per_worker_hour: float | None
    cuda_graphs: bool
    """Whether steps are recorded and replayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the run is computed."""

    world_size: int
    """Workers; in an attempt's plan the ones it has, in a run's the ones it would have now."""
    min_world_size: int
    max_world_size: int
    """What the world size may become while the run lives; both are `world_size` if it is fixed."""
    resize_s: float
    """Least time from one change of the world size to the next."""
    split_groups: bool
    """Whether workers beyond the number of groups share one."""
    device: Literal["cpu", "cuda"]
    gpus_per_worker: int
    cpus_per_worker: int
    """What each worker reserves; 0 where workers share cores."""
    compute_threads: int
    """Of one worker, for torch."""
    group_shares: tuple[tuple[GroupShare, ...], ...]
    """For each rank the batch-norm groups it computes in turn, or its part of one."""
    images_per_rank: tuple[int, ...]
    """Of a full step."""
    versions: Mapping[str, str]
    """Package name to version."""

    @property
    def fingerprint(self) -> str:
        """'sha256:…' of all fields; equal ones, with equal numerics, promise bitwise equal weights."""
        return _fingerprint(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeEstimate:
    """How long the run is expected to take."""

    basis: str
    """What it rests on, in words."""
    images_per_s: float
    """Of all workers together, while training."""
    step_s: float
    epoch_h: float
    """Training and one evaluation."""
    total_h: float
    gpu_hours: float
    """0 without GPUs."""
    money: float | None = None
    """In the currency of the price that the recipe gives; None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """What one worker is expected to hold at its peak, in bytes, on the device that computes."""

    basis: str
    """What it rests on, in words."""
    weights_bytes: int
    """Weights, gradients, momentum and DDP's buckets."""
    activations_bytes: int
    """Of the largest micro-batch."""
    images_bytes: int
    """Batches that are being trained on or wait."""

    @property
    def total_bytes(self) -> int:
        """The sum of the parts."""
        return self.weights_bytes + self.activations_bytes + self.images_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the run is expected to take; None where nothing is known to estimate it from."""

    time: TimeEstimate | None
    memory: MemoryEstimate | None
    unknown: tuple[str, ...]
    """What isn't known and how to find out, as sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A change of the schedule that was asked for when the run was resumed."""

    step: int
    """Optimiser steps done by then; the change holds from the next one on."""
    changes: tuple[tuple[str, str, str], ...]
    """(field of the numerics, what it was, what it is)."""
    numerics_before: str
    """The fingerprint of the numerics before, which earlier checkpoints carry."""
    plan_before: str
    """The file in the run directory that keeps the plan before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run does, resolved from a recipe, a cluster and a data set."""

    format_version: Literal[2] = FORMAT_VERSION
    numerics: Numerics
    execution: Execution
    placement: Placement
    learning_rates: tuple[LearningRateSegment, ...]
    """The schedule of `numerics`, for reading."""
    estimate: Estimate
    deviations: tuple[Deviation, ...] = ()
    """Oldest first."""
    notes: tuple[str, ...]
    """What a person should know: assumptions, what is unknown, what to do about it."""

    def to_json(self) -> str:
        """The plan as JSON text; `from_json` gives back an equal plan, and notices whatever was changed of it."""
        document = {**asdict(self), "fingerprints": self.fingerprints, "sha256": _fingerprint(self)}
        return json.dumps(document, indent=2, allow_nan=False)

    def continues(self, numerics_fingerprint: str) -> bool:
        """Whether a checkpoint of those numerics is one of this run's, before a deviation or after."""
        known = (self.numerics.fingerprint, *(deviation.numerics_before for deviation in self.deviations))
        return numerics_fingerprint in known

    @property
    def fingerprints(self) -> dict[str, str]:
        """Both fingerprints, by the part that they are of."""
        return {"numerics": self.numerics.fingerprint, "placement": self.placement.fingerprint}

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan written by `to_json`. Raises StorageError if it is of another format or isn't whole."""
        document = _parse(text)
        version = document.get("format_version")
        if version != FORMAT_VERSION:
            raise StorageError(
                f"The plan has format_version {version!r}, and this dnctl reads {FORMAT_VERSION}: "
                "use the version of dnctl that wrote it."
            )
        fingerprints, sha256 = document.pop("fingerprints", None), document.pop("sha256", None)
        try:
            plan = _adapter().validate_python(document)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
            raise StorageError("The plan can't be read; it is damaged:\n  " + "\n  ".join(faults)) from None
        try:
            is_as_written = fingerprints == plan.fingerprints and sha256 == _fingerprint(plan)
        except ValueError:  # a number that isn't one
            is_as_written = False
        if not is_as_written:
            raise StorageError("The plan doesn't match its own fingerprints: it was changed after it was written.")
        return plan


@cache
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


def _parse(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"The plan can't be read; it is damaged: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise StorageError("The plan can't be read; it is damaged: a JSON object was expected.")
    return document


def _fingerprint(part: "Numerics | Placement | Plan") -> str:
    canonical = json.dumps(asdict(part), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
