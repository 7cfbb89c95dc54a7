"""One optimiser step: this rank's batch-norm groups, one after another or in one pass, then one update on all ranks.

The gradient is the sum over all images of the step divided by their number, however the groups fall on ranks.

A step has three parts: forward and backward passes on this rank; sums over ranks; and what all ranks make of the sums.
The first and the last decide nothing on the host, so each can be recorded as a CUDA graph. The short last batch of an
epoch runs as it is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from time import perf_counter

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from orchestrator.data.batch import Batch
from orchestrator.errors import PlanError
from orchestrator.models.block.groups import set_group_sizes, takes_groups
from orchestrator.models.dropout import set_sample_keys
from orchestrator.plan.groups import GroupShare, group_ranks, share_positions
from orchestrator.plan.plan import Numerics
from orchestrator.train.batch_norm import RunningStatistics, split_groups
from orchestrator.train.gradients import GatheredGradients, SummedGradients
from orchestrator.train.graph import Capture, GroupInputs, Recorded, StaticInputs, on_device
from orchestrator.train.guard import Guard
from orchestrator.train.images import Normalize
from orchestrator.train.optimizer import scaled_step_unless, set_learning_rate, step_unless
from orchestrator.train.world import World

AUTOCAST_DTYPE = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step leaves behind."""

    totals: Tensor
    """float64[6] on the device, over all ranks: sum of losses, images classified right, what the first rank requests
    (a `Request`), the checksum of the samples, whether the step was applied, the norm of its gradient."""
    figures: Tensor
    """float64 on the device: what `run` was given as figures, summed over ranks."""
    num_images: int
    data_wait_s: float
    communication_s: float


class TrainingStep:
    """The network with all that a step does to it."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.SGD,
        scaler: torch.amp.GradScaler,
        *,
        numerics: Numerics,
        group_shares: Sequence[Sequence[GroupShare]],
        world: World,
        normalize: Normalize,
        capture: Capture | None = None,
        groups_in_one_pass: bool = False,
    ) -> None:
        """Model and optimiser must be as the run shall go on from: ranks take over the first rank's values here.

        group_shares: for each rank the batch-norm groups, or the part of one, that it computes in every step.
        capture: records the parts of full steps; None: nothing is recorded. Not for groups that ranks share.
        groups_in_one_pass: pass them through the network together, each normalised on its own; for fused blocks.
        """
        if groups_in_one_pass and not takes_groups(model):
            raise PlanError("a rank's groups pass in one go only through a network with model.block=fused")
        self._in_one_pass = groups_in_one_pass
        self._numerics = numerics
        self._world = world
        self._model = model
        self._optimizer = optimizer
        self._scaler = scaler
        self._normalize = normalize
        self._shares = group_shares[world.rank]
        self._autocast_dtype = AUTOCAST_DTYPE[numerics.precision]
        if any(share.num_parts > 1 for shares in group_shares for share in shares):
            process_group = self._make_process_groups()
            if self._shares[0].num_parts > 1:
                split_groups(model, process_group)
        self._statistics = RunningStatistics(model)
        num_addends = max(numerics.batch_norm_groups, sum(1 for shares in group_shares if shares))
        self.guard = Guard(
            spike=numerics.guard_spike,
            guessing_loss=math.log(numerics.num_classes),
            loss_scaling=scaler.is_enabled(),
            device=world.device,
        )
        """Decides which steps are applied; a checkpoint holds its state."""
        self._totals = torch.zeros(4, dtype=torch.float64, device=world.device)
        self._verdict = torch.zeros(2, dtype=torch.float64, device=world.device)
        """Whether the step was applied, and the norm of its gradient."""
        self._capture = capture
        self._recorded: tuple[StaticInputs, Recorded, Recorded] | None = None
        gradients = SummedGradients if capture is None else GatheredGradients
        self._gradients = gradients(
            model, world, sum_dtype=_sum_dtype(num_addends, deterministic=numerics.deterministic)
        )

    def _make_process_groups(self) -> dist.ProcessGroup:
        """The ranks that share this rank's group. Making them is a collective: every rank makes all of them."""
        ranks = group_ranks(num_groups=self._numerics.batch_norm_groups, world_size=self._world.size)
        mine, _ = dist.new_subgroups_by_enumeration([list(members) for members in ranks])
        assert isinstance(mine, dist.ProcessGroup)
        return mine

    def run(
        self,
        next_batch: Callable[[], Batch],
        *,
        step: int,
        learning_rate: float,
        request: int = 0,
        figures: Sequence[float] = (),
    ) -> StepResult:
        """Do step number `step` (0-based, since the run began) on this rank's next batches, one a share.

        request: what this rank asks of all after the step; the first rank alone asks for anything but 0.
        figures: numbers, as many on every rank, that are summed over ranks along the way.
        """
        started_at = perf_counter()
        batches = [next_batch() for _ in self._shares]
        data_wait_s = perf_counter() - started_at
        num_images = self._num_images(step)
        checksum = sum(map(self._samples_checksum, self._shares, batches, repeat(num_images)))
        inputs = [GroupInputs.of(batch, self._world.device) for batch in batches]
        set_learning_rate(self._optimizer, learning_rate)
        compute, update = self._parts(inputs, num_images)
        compute()
        communication_s = self._gradients.wait_s()
        numbers = on_device([request, checksum, *figures], torch.float64, self._world.device)
        summed, wait_s = self._sum_over_ranks(numbers)
        update()
        return StepResult(
            totals=torch.cat([self._totals, self._verdict]),
            figures=summed[2:],
            num_images=num_images,
            data_wait_s=data_wait_s,
            communication_s=communication_s + wait_s,
        )

    def _parts(self, inputs: list[GroupInputs], num_images: int) -> tuple[Callable[[], None], Callable[[], None]]:
        """What a step does before ranks sum, and after, on these inputs."""
        if self._capture is None or num_images != self._numerics.global_batch_size:
            return lambda: self._compute(inputs, num_images), lambda: self._update(num_images)
        if self._recorded is None:
            static = StaticInputs(inputs)
            device = self._world.device
            compute = Recorded(
                "the forward and backward pass",
                lambda: self._compute(static.groups, num_images),
                self._capture,
                device=device,
            )
            update = Recorded("the update", lambda: self._update(num_images), self._capture, device=device)
            self._recorded = static, compute, update
        static, compute, update = self._recorded
        static.fill(inputs)
        return compute, update

    @property
    def graphs(self) -> str:
        """Whether steps are replayed: "off", "warming up", "replayed", or why they can't be."""
        if self._capture is None:
            return "off"
        if self._recorded is None:
            return "warming up"
        failures = [part.failure for part in self._recorded[1:] if part.failure is not None]
        if failures:
            return failures[0]
        return "replayed" if all(part.is_recorded for part in self._recorded[1:]) else "warming up"

    def _compute(self, inputs: list[GroupInputs], num_images: int) -> None:
        """This rank's gradients, statistics and totals."""
        self._totals.zero_()
        self._gradients.begin()
        with self._statistics.step():
            self._forward_and_backward(inputs, num_images)

    def _sum_over_ranks(self, numbers: Tensor) -> tuple[Tensor, float]:
        """Sum what `_compute` left, and `numbers`, whose first two join the totals. Returns the rest, and seconds."""
        started_at = perf_counter()
        self._gradients.sum_over_ranks()
        statistics = self._statistics.accumulated
        summed = self._world.all_reduce_sum(torch.cat([statistics, self._totals[:2], numbers]))
        statistics.copy_(summed[: len(statistics)])
        self._totals.copy_(summed[len(statistics) : len(statistics) + 4])
        return summed[len(statistics) + 2 :], perf_counter() - started_at if self._world.size > 1 else 0.0

    def _update(self, num_images: int) -> None:
        """Weights and running statistics, from what all ranks have in common, if the guard lets the step pass."""
        self._gradients.hand_over()
        grad_norm = self._grad_norm()
        admitted = self.guard.admit(self._totals[0] / num_images, grad_norm)
        self._statistics.update(min(self._numerics.batch_norm_groups, num_images), admitted=admitted)
        self._update_weights(admitted, grad_norm)
        self._verdict.copy_(torch.stack([admitted, grad_norm]))

    def _samples_checksum(self, share: GroupShare, batch: Batch, num_images: int) -> int:
        """Of which image is where in the step: a whole number far below 2**53, which ranks add without rounding."""
        positions = share_positions(
            step_in_epoch=0,
            num_samples=num_images,
            global_batch_size=num_images,
            num_groups=self._numerics.batch_norm_groups,
            share=share,
        )
        return int(((batch.indices + 1) * (np.arange(positions.start, positions.stop) + 1)).sum())

    def _num_images(self, step: int) -> int:
        is_last = (step + 1) % self._numerics.steps_per_epoch == 0
        return self._numerics.last_batch_size if is_last else self._numerics.global_batch_size

    def _forward_and_backward(self, inputs: list[GroupInputs], num_images: int) -> None:
        """Add this rank's gradients and totals; the last backward pass sums the gradients over ranks."""
        work = [
            (share, group)
            for share, group in zip(self._shares, inputs, strict=True)
            if len(group.labels) or self._group_has_images(share, num_images)
        ]
        if self._in_one_pass and len(work) > 1:
            groups = [group for _, group in work]
            set_group_sizes(self._model, [len(group.labels) for group in groups])
            with self._gradients.summing():
                self._pass(GroupInputs.joined(groups), num_images, num_groups=len(groups))
            set_group_sizes(self._model, None)
            return
        for share, group in work[:-1]:
            with self._gradients.accumulating():
                self._pass(group, num_images, num_groups=1 / share.num_parts)
        with self._gradients.summing():
            if work:
                share, group = work[-1]
                self._pass(group, num_images, num_groups=1 / share.num_parts)
            else:
                self._join_without_images()

    def _group_has_images(self, share: GroupShare, num_images: int) -> bool:
        return share.group < num_images

    def _pass(self, batch: GroupInputs, num_images: int, *, num_groups: float) -> None:
        """Forward and backward of one batch. num_groups: how many groups, or what part of one, the batch is."""
        set_sample_keys(self._model, seed=self._numerics.seed, epoch=batch.epoch, indices=batch.indices)
        with torch.autocast(
            self._world.device.type, dtype=self._autocast_dtype, enabled=self._autocast_dtype is not None
        ):
            logits = self._gradients.module(self._normalize(batch.images, batch.color))
        logits = logits.float()
        loss_sum = F.cross_entropy(
            logits, batch.labels, reduction="sum", label_smoothing=self._numerics.label_smoothing
        )
        self._statistics.add_group(num_groups)
        self._scaler.scale(loss_sum / num_images).backward()
        with torch.no_grad():
            self._totals[0] += loss_sum
            self._totals[1] += (logits.argmax(1) == batch.labels).sum()

    def _join_without_images(self) -> None:
        """Add zeros, so that the others can sum: for a rank without a group, or whose groups are empty."""
        size = self._numerics.train_transform.image_size
        one_image = torch.zeros((1, size, size, 3), dtype=torch.uint8, device=self._world.device)
        self._model.eval()
        logits = self._gradients.module(self._normalize(one_image))
        self._model.train()
        self._scaler.scale(logits.sum() * 0.0).backward()

    def _grad_norm(self) -> Tensor:
        """The norm of the step's gradient, over all parameters; a scalar on the device."""
        if self._scaler.is_enabled():
            self._scaler.unscale_(self._optimizer)
        return nn.utils.get_total_norm([p.grad for p in self._model.parameters() if p.grad is not None])

    def _update_weights(self, admitted: Tensor, grad_norm: Tensor) -> None:
        if self._numerics.clip_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self._model.parameters(), self._numerics.clip_grad_norm, grad_norm)
        if self._scaler.is_enabled():
            scaled_step_unless(self._optimizer, self._scaler, ~admitted)
        else:
            step_unless(self._optimizer, ~admitted)
        self._optimizer.zero_grad(set_to_none=True)


def _sum_dtype(num_addends: int, *, deterministic: bool) -> torch.dtype:
    """In what gradients are added. Two float32 numbers have the same sum in either order, rounded once either way."""
    return torch.float64 if deterministic and num_addends > 2 else torch.float32
