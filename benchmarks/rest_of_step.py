"""What a training step does beside the network: its cost, as a part of the step.

    python benchmarks/rest_of_step.py [--json] [--models densenet121 densenet169] [--batch 8] [--precision fp32 bf16]
                                      [--groups 1] [--workers 1 2] [--steps 5] [--rounds 3] [--profile]

Needs torch alone, on CPUs or GPUs (a worker each); no Ray, no DALI. dnctl's own step runs in two forms, by turns: with
the network, and with a hollow one, which has the same parameters and buffers but computes nothing: its logits and its
gradients are zeros. What the hollow step takes is what all else takes: handing over the batch, normalising images, the
loss, gradients on their way to the optimiser and between workers, the guard, statistics, weights, the totals on their
way to the host. It is more than a whole step pays for that: zeros are written, too, and where DDP sums gradients while
the network still runs backwards, a part of it is hidden.

--batch: images of all workers. --profile: also print what the hollow step's parts take, by torch's profiler.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from common import Ratio, document, print_document
from torch import Tensor, nn

from orchestrator.data.batch import Batch
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.groups import share_positions
from orchestrator.plan.plan import Plan
from orchestrator.plan.resolve import DatasetFacts, resolve
from orchestrator.plan.versions import COMPILER
from orchestrator.recipe.load import load_recipe
from orchestrator.train.graph import WARM_UP, CaptureOnGpu
from orchestrator.train.images import Normalize
from orchestrator.train.network import build_network
from orchestrator.train.optimizer import build_optimizer
from orchestrator.train.process import prepare_process
from orchestrator.train.step import TrainingStep
from orchestrator.train.totals import TotalsQueue
from orchestrator.train.world import World

NUM_CLASSES = 1000
STEPS_PER_EPOCH = 1000
"""So many that no step is an epoch's short last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is measured by one group of workers."""

    model: str
    precision: str
    batch: int
    groups: int
    workers: int
    steps: int
    rounds: int
    profile: bool


class _Nothing(torch.autograd.Function):
    """Zeros as logits, and as the gradient of every parameter."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return images.new_zeros(len(images), NUM_CLASSES)

    @staticmethod
    def backward(ctx: Any, grad_logits: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)


class Hollow(nn.Module):
    """A network's parameters and buffers without its computation."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """images: [n, c, h, w]; zeros [n, NUM_CLASSES]."""
        logits: Tensor = _Nothing.apply(images, *self.network.parameters())
        return logits


def plan_of(case: Case) -> Plan:
    """A plan for the machine at hand."""
    gpus = int(torch.cuda.is_available())
    settings = [
        *(f"train.global_batch_size={case.batch}", f"train.batch_norm_groups={case.groups}"),
        *(f"train.precision={case.precision}", "train.channels_last=true", "model.block=fused"),
        *(f"cluster.workers={case.workers}", f"cluster.gpus_per_worker={gpus}", "data.root=/nowhere"),
    ]
    num_images = case.batch * STEPS_PER_EPOCH
    return resolve(
        load_recipe(case.model, settings),
        cluster=ClusterShape(num_cpus=max(2, torch.get_num_threads()), num_gpus=gpus * case.workers),
        dataset=DatasetFacts(
            num_train_images=num_images, num_val_images=1, num_classes=NUM_CLASSES, fingerprint="sha256:0"
        ),
        versions={COMPILER: "any"},
        loader_available="pytorch",
    )


def steps_of(plan: Plan, world: World, *, hollow: bool) -> Callable[[int], float]:
    """What does a step and tells the seconds until its totals, or on a GPU those of the step before, were there."""
    numerics = plan.numerics
    network = build_network(plan, world.device)
    model = Hollow(network) if hollow else network
    step = TrainingStep(
        model,
        build_optimizer(model, numerics.optimizer),
        torch.amp.GradScaler(world.device.type, enabled=numerics.precision == "fp16"),
        numerics=numerics,
        group_shares=plan.placement.group_shares,
        world=world,
        normalize=Normalize(
            mean=numerics.mean, std=numerics.std, device=world.device, channels_last=numerics.channels_last
        ),
        capture=CaptureOnGpu(world.device) if world.device.type == "cuda" and plan.execution.cuda_graphs else None,
        groups_in_one_pass=plan.execution.groups_in_one_pass,
    )
    batches = list(batches_of(plan, world))
    totals = TotalsQueue(world.device)

    def run(number: int) -> float:
        following = iter(batches)
        began_at = perf_counter()
        result = step.run(lambda: next(following), step=number, learning_rate=1e-3)
        for each in totals.push(number, result):
            assert each.applied
        return perf_counter() - began_at

    return run


def batches_of(plan: Plan, world: World) -> Iterator[Batch]:
    """As a loader hands them over: for each of this worker's shares of a step."""
    size = plan.numerics.train_transform.image_size
    generator = torch.Generator().manual_seed(world.rank)
    for share in plan.placement.group_shares[world.rank]:
        positions = share_positions(
            step_in_epoch=0,
            num_samples=plan.numerics.global_batch_size,
            global_batch_size=plan.numerics.global_batch_size,
            num_groups=plan.numerics.batch_norm_groups,
            share=share,
        )
        images = torch.randint(256, (len(positions), size, size, 3), dtype=torch.uint8, generator=generator)
        labels = torch.randint(NUM_CLASSES, (len(positions),), generator=generator)
        yield Batch(
            images=images.to(world.device), labels=labels.to(world.device), indices=np.asarray(positions), epoch=0
        )


def measure(case: Case, world: World) -> dict[str, list[float]]:
    """Seconds of a step, whole and hollow, in each round."""
    plan = plan_of(case)
    prepare_process(plan)
    forms = {"whole": steps_of(plan, world, hollow=False), "hollow": steps_of(plan, world, hollow=True)}
    for step in range(WARM_UP + 2):
        for run in forms.values():
            run(step)
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    for number in range(case.rounds):
        for form, run in forms.items():
            steps = [run(WARM_UP + 2 + number * case.steps + step) for step in range(case.steps)]
            # On a GPU a step returns when the one before is done: the mean counts.
            seconds[form].append(median(steps) if world.device.type == "cpu" else sum(steps[1:]) / (len(steps) - 1))
    if case.profile and world.is_first:
        print_profile(forms["hollow"], world)
    return seconds


def print_profile(run: Callable[[int], float], world: World) -> None:
    """What the parts of a step take, the longest first."""
    with torch.profiler.profile() as profiler:
        run(STEPS_PER_EPOCH // 2)
        if world.device.type == "cuda":
            torch.cuda.synchronize()
    by = f"self_{world.device.type}_time_total"
    print(profiler.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=60))


def work(rank: int, case: Case, folder: str) -> None:
    """One worker."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    if case.workers > 1:
        store = dist.FileStore(f"{folder}/store", case.workers)
        dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=case.workers)
    found = measure(case, World(rank=rank, size=case.workers, device=device))
    if rank == 0:
        Path(folder, "found.json").write_text(json.dumps(found))
    if case.workers > 1:
        dist.destroy_process_group()


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--models", nargs="+", default=["densenet121", "densenet169"])
    parser.add_argument("--batch", nargs="+", type=int, default=[256] if on_gpu else [8])
    parser.add_argument(
        "--precision", nargs="+", choices=("fp32", "bf16", "fp16"), default=["bf16" if on_gpu else "fp32"]
    )
    parser.add_argument("--groups", type=int, default=4 if on_gpu else 1, help="batch-norm groups")
    parser.add_argument("--workers", nargs="+", type=int, default=[1] if on_gpu else [1, 2])
    parser.add_argument("--steps", type=int, default=20 if on_gpu else 5, help="steps of each form in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    if arguments.steps < 2:
        parser.error("--steps: at least 2; on a GPU the first one waits for what was before it")
    rows, ratios = [], {}
    for model, batch, precision, workers in product(
        arguments.models, arguments.batch, arguments.precision, arguments.workers
    ):
        case = Case(
            model=model,
            precision=precision,
            batch=batch,
            groups=max(arguments.groups, workers),
            workers=workers,
            steps=arguments.steps,
            rounds=arguments.rounds,
            profile=arguments.profile,
        )
        with tempfile.TemporaryDirectory(prefix="rest") as folder:
            mp.spawn(work, (case, folder), nprocs=workers)
            found = json.loads(Path(folder, "found.json").read_text())
        whole, hollow = found["whole"], found["hollow"]
        shares = [rest / all_of_it for rest, all_of_it in zip(hollow, whole, strict=True)]
        about = {"model": model, "precision": precision, "batch": batch, "groups": case.groups, "workers": workers}
        rows.append({**about, "step_ms": 1e3 * median(whole), "rest_ms": 1e3 * median(hollow)})
        key = f"{model}/{precision}/batch{batch}/workers{workers}/rest_of_step"
        ratios[key] = Ratio(median=median(shares), low=min(shares), high=max(shares))
    print_document(document(rows=rows, ratios=ratios), as_json=arguments.json)


if __name__ == "__main__":
    main()
