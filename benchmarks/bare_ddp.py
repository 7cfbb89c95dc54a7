"""The peer of overhead.py: a plain DDP loop, as one writes it by hand, under torchrun. bare_ray.py starts it, too.

    torchrun --standalone --nproc-per-node 2 benchmarks/bare_ddp.py PLAN ROOT TIMES

It trains what a plan says: the same network, the same batches from the same loader with as many threads, the same
optimiser, in the same precision. It keeps no metrics, saves nothing and asks for no determinism; the rank that is first
writes to TIMES when it had done the first step and every step that a run would log.
"""

import argparse
import json
import math
import os
from pathlib import Path
from time import time

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from orchestrator.data.index import index_dataset
from orchestrator.data.loader import open_loader
from orchestrator.models import create_model
from orchestrator.plan.plan import Plan
from orchestrator.train.images import Normalize
from orchestrator.train.optimizer import build_optimizer
from orchestrator.train.requests import training_requests
from orchestrator.train.step import AUTOCAST_DTYPE
from orchestrator.train.transforms import train_transform


def train(plan: Plan, root: str, times_path: Path, *, rank: int, device: torch.device) -> None:
    """Train one rank, in a process group that exists. Each rank has one batch-norm group."""
    numerics, execution = plan.numerics, plan.execution
    torch.set_num_threads(plan.placement.compute_threads)
    torch.backends.cudnn.benchmark = True
    model = create_model(numerics.model.name, num_classes=numerics.num_classes, seed=numerics.seed).to(device)
    if numerics.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, numerics.optimizer)
    model = DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )
    normalize = Normalize(mean=numerics.mean, std=numerics.std, device=device, channels_last=numerics.channels_last)
    dtype = AUTOCAST_DTYPE[numerics.precision]
    times: dict[int, float] = {}
    loader = open_loader(
        numerics.loader,
        index_dataset(root).train,
        train_transform(numerics.train_transform),
        seed=numerics.seed,
        requests=training_requests(
            numerics,
            plan.placement.group_shares[rank],
            rows=np.arange(numerics.num_train_images),
            first_step=0,
        ),
        max_batch_size=math.ceil(numerics.global_batch_size / numerics.batch_norm_groups),
        device=device.type,
        device_index=device.index or 0,
        num_threads=execution.loader_threads,
        prefetch=execution.prefetch,
    )
    with loader:
        for step, batch in enumerate(loader, start=1):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                loss = F.cross_entropy(model(normalize(batch.images)), batch.labels)
            loss.backward()
            optimizer.step()
            if step == 1 or step % execution.log_every_steps == 0:
                if device.type == "cuda":
                    torch.cuda.synchronize()
                times[step] = time()
    if rank == 0:
        times_path.write_text(json.dumps(times))


def loop_arguments(description: str | None) -> argparse.ArgumentParser:
    """What a loop under torchrun is told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="a plan.json")
    parser.add_argument("root", help="the data set")
    parser.add_argument("times", type=Path, help="where the times of steps are written to")
    return parser


def main() -> None:
    """One rank of those that torchrun starts."""
    arguments = loop_arguments(__doc__).parse_args()
    plan = Plan.from_json(arguments.plan.read_text())
    device = torch.device(plan.placement.device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    train(plan, arguments.root, arguments.times, rank=dist.get_rank(), device=device)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
