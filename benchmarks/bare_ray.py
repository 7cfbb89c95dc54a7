"""The other peer of overhead.py: the loop of bare_ddp.py in a minimal Ray Train script.

python benchmarks/bare_ray.py PLAN ROOT TIMES [--address ADDRESS]
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from orchestrator.plan.plan import Plan

BENCHMARKS = str(Path(__file__).parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="a plan.json")
    parser.add_argument("root", help="the data set")
    parser.add_argument("times", type=Path, help="where the times of steps are written to")
    parser.add_argument("--address", help="of a cluster that is up; otherwise one is started for this script")
    arguments = parser.parse_args()
    plan = Plan.from_json(arguments.plan.read_text())

    def train_rank() -> None:
        sys.path.insert(0, BENCHMARKS)
        from bare_ddp import train

        rank, device = ray.train.get_context().get_world_rank(), ray.train.torch.get_device()
        train(plan, arguments.root, arguments.times, rank=rank, device=device)

    own_cluster: dict[str, Any] = {"address": "local", "num_cpus": os.cpu_count(), "include_dashboard": False}
    ray.init(log_to_driver=False, **({"address": arguments.address} if arguments.address else own_cluster))
    ray.train.torch.TorchTrainer(
        train_rank,
        scaling_config=ray.train.ScalingConfig(
            num_workers=plan.placement.world_size, use_gpu=plan.placement.device == "cuda"
        ),
        run_config=ray.train.RunConfig(storage_path=str(arguments.times.with_suffix(".ray"))),
    ).fit()


if __name__ == "__main__":
    main()
