"""The peer of recovery.py: a minimal Ray Train script that saves in the loop, as Ray's documentation shows it.

    python benchmarks/ray_checkpoints.py PLAN ROOT NOTES --address ADDRESS [--every N] [--interface NAME]

The network, batches, loader and optimiser are those of bare_ddp.py. Every N steps the first rank writes weights and
momentum with torch.save and all ranks report; a worker group that was lost is started again by Ray and goes on from the
last report. NOTES gets a JSON line for each thing that happens on the first rank: started, restored, step.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from orchestrator.data.index import index_dataset
from orchestrator.data.loader import open_loader
from orchestrator.models import create_model
from orchestrator.plan.plan import Plan
from orchestrator.train.images import Normalize
from orchestrator.train.optimizer import build_optimizer
from orchestrator.train.requests import training_requests
from orchestrator.train.transforms import train_transform

MAX_FAILURES = 3
STATE = "state.pt"


class Notes:
    """What happens on the first rank, and when."""

    def __init__(self, path: Path, *, rank: int) -> None:
        self._file = path.open("a") if rank == 0 else None

    def add(self, what: str, step: int) -> None:
        """Write it down at once."""
        if self._file is not None:
            self._file.write(json.dumps({"what": what, "step": step, "time": time()}) + "\n")
            self._file.flush()


def train(plan: Plan, root: str, notes_path: Path, *, every: int) -> None:
    """Train one rank. every: steps from one checkpoint to the next; 0 for none."""
    context = ray.train.get_context()
    rank, device = context.get_world_rank(), ray.train.torch.get_device()
    notes = Notes(notes_path, rank=rank)
    notes.add("started", 0)
    numerics, execution = plan.numerics, plan.execution
    torch.set_num_threads(plan.placement.compute_threads)
    model = create_model(numerics.model.name, num_classes=numerics.num_classes, seed=numerics.seed).to(device)
    optimizer = build_optimizer(model, numerics.optimizer)
    step = _restore(model, optimizer)
    notes.add("restored", step)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
    normalize = Normalize(mean=numerics.mean, std=numerics.std, device=device, channels_last=numerics.channels_last)
    loader = open_loader(
        numerics.loader,
        index_dataset(root).train,
        train_transform(numerics.train_transform),
        seed=numerics.seed,
        requests=training_requests(
            numerics,
            plan.placement.group_shares[rank],
            rows=np.arange(numerics.num_train_images),
            first_step=step,
        ),
        max_batch_size=math.ceil(numerics.global_batch_size / numerics.batch_norm_groups),
        device=device.type,
        device_index=device.index or 0,
        num_threads=execution.loader_threads,
        prefetch=execution.prefetch,
    )
    with loader:
        for batch in loader:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(wrapped(normalize(batch.images)), batch.labels).backward()
            optimizer.step()
            step += 1
            notes.add("step", step)
            if every and step % every == 0:
                _save(model, optimizer, step, rank=rank)


def _restore(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / STATE, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _save(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, *, rank: int) -> None:
    if rank != 0:
        ray.train.report({"step": step})
        return
    with tempfile.TemporaryDirectory() as folder:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(state, Path(folder) / STATE)
        ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="a plan.json")
    parser.add_argument("root", help="the data set")
    parser.add_argument("notes", type=Path, help="where what happens is written to")
    parser.add_argument("--address", required=True, help="of the cluster")
    parser.add_argument("--every", type=int, default=0, help="steps from one checkpoint to the next; 0: none")
    parser.add_argument("--interface", default="", help="the network interface that workers talk over")
    arguments = parser.parse_args()
    plan, benchmarks = Plan.from_json(arguments.plan.read_text()), str(Path(__file__).parent)

    def train_rank() -> None:
        import sys

        sys.path.insert(0, benchmarks)
        from ray_checkpoints import train

        train(plan, arguments.root, arguments.notes, every=arguments.every)

    environment: dict[str, Any] = {"GLOO_SOCKET_IFNAME": arguments.interface} if arguments.interface else {}
    ray.init(address=arguments.address, log_to_driver=False, runtime_env={"env_vars": environment})
    ray.train.torch.TorchTrainer(
        train_rank,
        scaling_config=ray.train.ScalingConfig(
            num_workers=plan.placement.world_size, resources_per_worker={"CPU": max(plan.placement.cpus_per_worker, 1)}
        ),
        run_config=ray.train.RunConfig(
            name=arguments.notes.stem,
            storage_path=str(arguments.notes.parent / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=3),
        ),
    ).fit()


if __name__ == "__main__":
    main()
