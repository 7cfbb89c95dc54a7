"""A recorded step is the step: the same samples, sums, refusals and weights, whatever is replayed and whatever isn't.

Recording itself needs a GPU (tests/gpu). Here work is "recorded" by being kept and done again; what makes a recording
right on a GPU, that every replay finds its inputs and leaves its results in the same memory, is watched.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from orchestrator.data.batch import Batch
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.groups import group_shares
from orchestrator.plan.plan import Numerics, Plan
from orchestrator.plan.resolve import DatasetFacts, resolve
from orchestrator.recipe.load import load_recipe
from orchestrator.train.graph import WARM_UP, Recorded
from orchestrator.train.images import Normalize
from orchestrator.train.network import build_network
from orchestrator.train.optimizer import build_optimizer
from orchestrator.train.step import TrainingStep
from orchestrator.train.world import World

CPU = torch.device("cpu")
NUM_STEPS = 8  # three epochs of two full steps and a short one, less one


def plan_of(*overrides: str) -> Plan:
    settings = ["train.global_batch_size=8", "train.batch_norm_groups=2", "data.train.image_size=16", *overrides]
    facts = DatasetFacts(num_train_images=21, num_val_images=4, num_classes=3, fingerprint="sha256:0")
    recipe = load_recipe("demo", settings)
    cluster = ClusterShape(num_cpus=1)
    return resolve(recipe, cluster=cluster, dataset=facts, versions={}, loader_available="pytorch")


class Replays:
    """Records by keeping the work; counts what is recorded and replayed."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.num_recorded = self.num_replayed = 0

    def __call__(self, work):
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
        self.num_recorded += 1

        def replay() -> None:
            self.num_replayed += 1
            work()

        return replay


def batch_of(numerics: Numerics, step: int, share: int) -> Batch:
    """What a loader would give; another one for each step and share."""
    short = (step + 1) % numerics.steps_per_epoch == 0
    sizes = (3, 2) if short else (4, 4)
    generator = torch.Generator().manual_seed(10 * step + share)
    num_images = sizes[share]
    return Batch(
        images=torch.randint(0, 256, (num_images, 16, 16, 3), dtype=torch.uint8, generator=generator),
        labels=torch.randint(0, 3, (num_images,), generator=generator),
        indices=np.arange(num_images, dtype=np.int64) + 4 * share + 100 * step,
        epoch=step // numerics.steps_per_epoch,
    )


def test_a_rank_without_a_group_does_its_part_in_fp16():
    plan = plan_of("train.precision=fp16")
    model = build_network(plan, CPU)
    before = {name: value.clone() for name, value in model.named_parameters()}
    step = TrainingStep(
        model,
        build_optimizer(model, plan.numerics.optimizer),
        torch.amp.GradScaler("cpu"),
        numerics=plan.numerics,
        group_shares=[()],
        world=World.single(),
        normalize=Normalize(mean=plan.numerics.mean, std=plan.numerics.std, device=CPU, channels_last=False),
    )
    assert step.run(lambda: None, step=0, learning_rate=0.0).num_images == 8
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def train(
    plan: Plan, capture=None, *, spoil: int | None = None, world: World | None = None
) -> tuple[TrainingStep, list, dict[str, torch.Tensor]]:
    """Some steps; their totals and what they leave. spoil: the step whose loss isn't finite."""
    numerics, world = plan.numerics, world or World.single()
    model = build_network(plan, CPU)
    scaler = torch.amp.GradScaler("cpu", enabled=numerics.precision == "fp16")
    optimizer = build_optimizer(model, numerics.optimizer)
    normalize = Normalize(mean=numerics.mean, std=numerics.std, device=CPU, channels_last=False)
    shares = [group_shares(num_groups=2, world_size=world.size, rank=rank) for rank in range(world.size)]
    step = TrainingStep(
        model,
        optimizer,
        scaler,
        numerics=numerics,
        group_shares=shares,
        world=world,
        normalize=normalize,
        capture=capture,
    )
    totals = []
    for number in range(NUM_STEPS):
        batches = iter([batch_of(numerics, number, share.group) for share in shares[world.rank]])
        if number == spoil:
            weight = next(model.parameters())
            was = weight.detach().clone()
            weight.data.fill_(torch.nan)
        result = step.run(
            lambda batches=batches: next(batches), step=number, learning_rate=0.1 / (1 + number), figures=[1.5, number]
        )
        if number == spoil:
            weight.data.copy_(was)
        totals.append([*result.totals.tolist(), *result.figures.tolist()])
    left = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    left |= {str(number): state["momentum_buffer"] for number, state in enumerate(optimizer.state.values())}
    left["scale"] = torch.tensor(scaler.get_scale())
    return step, totals, left


OPTIONS = [
    (),
    ("model.drop_rate=0.3",),
    ("model.memory_efficient=true",),
    ("train.clip_grad_norm=0.5",),
    ("train.precision=bf16", "train.deterministic=false"),
]


@pytest.mark.parametrize("overrides", OPTIONS)
def test_replayed_steps_are_bitwise_the_steps(overrides):
    plan = plan_of(*overrides)
    capture = Replays()
    step, totals, left = train(plan, capture)
    _, expected_totals, expected = train(plan)
    assert totals == expected_totals
    assert left.keys() == expected.keys()
    assert all(torch.equal(left[name], expected[name]) for name in expected)
    full_steps = sum((number + 1) % 3 != 0 for number in range(NUM_STEPS))
    assert step.graphs == "replayed"
    assert capture.num_recorded == 2
    assert capture.num_replayed == 2 * (full_steps - WARM_UP)


@pytest.mark.parametrize("overrides", [(), ("train.precision=fp16",)])
@pytest.mark.parametrize("capture", [None, Replays()])
def test_a_refused_step_changes_nothing_and_the_next_one_goes_on(overrides, capture):
    plan = plan_of("guard.policy=skip", *overrides)
    _, totals, left = train(plan, capture, spoil=4)
    applied = [row[4] for row in totals]
    assert applied == [1, 1, 1, 1, 0, 1, 1, 1]
    assert all(tensor.isfinite().all() for tensor in left.values())
    without = replace(plan, numerics=replace(plan.numerics, guard_spike=None))
    _, _, same = train(without, None, spoil=4)
    assert all(torch.equal(left[name], same[name]) for name in same)


@pytest.mark.slow
def test_ranks_that_replay_come_to_the_bits_of_one_that_does_not():
    num_ranks = 2
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_ranks)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.replaying_rank"],
            env={**environment, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    printed = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * num_ranks
    torch.set_num_threads(1)
    _, totals, left = train(plan_of())
    assert printed == [digest(totals, left, num_ranks=num_ranks)] * num_ranks


def digest(totals: list, left: dict[str, torch.Tensor], *, num_ranks: int = 1) -> str:
    """What a training left, in a line. Figures are summed over ranks, so one rank's are taken times their number."""
    lines = [[*row[:6], *(figure * num_ranks for figure in row[6:])] for row in totals]
    bits = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in left.values())).hexdigest()
    return f"{json.dumps(lines)} {bits}\n"


def test_what_can_not_be_recorded_runs_as_it_is_and_says_so(caplog):
    plan = plan_of()
    capture = Replays(fails=True)
    step, totals, left = train(plan, capture)
    _, expected_totals, expected = train(plan)
    assert totals == expected_totals
    assert all(torch.equal(left[name], expected[name]) for name in expected)
    assert step.graphs == "operation not permitted when stream is capturing"
    (first, second) = [record.getMessage() for record in caplog.records]
    assert "the forward and backward pass can't be recorded as a CUDA graph and runs without one: operation" in first
    assert "the update can't be recorded" in second


def test_replays_use_the_same_memory_at_every_step():
    """The addresses that a recording would hold: inputs, parameters, momentum, statistics, totals, learning rate."""
    seen = []

    def capture(work):
        def replay():
            work()
            seen.append(addresses())

        return replay

    plan = plan_of("model.drop_rate=0.3")
    numerics = plan.numerics
    model = build_network(plan, CPU)
    optimizer = build_optimizer(model, numerics.optimizer)
    step = TrainingStep(
        model,
        optimizer,
        torch.amp.GradScaler("cpu", enabled=False),
        numerics=numerics,
        group_shares=[group_shares(num_groups=2, world_size=1, rank=0)],
        world=World.single(),
        normalize=Normalize(mean=numerics.mean, std=numerics.std, device=CPU, channels_last=False),
        capture=capture,
    )

    def addresses() -> list[int]:
        static, *_ = step._recorded
        tensors = [*model.state_dict().values(), *(tensor for group in static.groups for tensor in group.tensors())]
        tensors += [state["momentum_buffer"] for state in optimizer.state.values()]
        tensors += [step._totals, step._verdict, step._statistics.accumulated, step._gradients._sums]
        tensors += [step.guard._values, step.guard._num_seen]
        return [tensor.data_ptr() for tensor in tensors]

    for number in range(NUM_STEPS):
        batches = iter([batch_of(numerics, number, share) for share in range(2)])
        step.run(lambda batches=batches: next(batches), step=number, learning_rate=0.1)
    assert len(seen) > 2
    assert all(places == seen[0] for places in seen)


def test_work_is_done_once_a_call_recorded_or_not():
    num_done = 0

    def work() -> None:
        nonlocal num_done
        num_done += 1

    recorded = Recorded("it", work, Replays(), device=CPU)
    for _ in range(WARM_UP + 3):
        recorded()
    assert num_done == WARM_UP + 3
    assert recorded.is_recorded
