"""dnctl's training loop without Ray, for overhead.py: what is left of a run's cost is Ray's and the driver's.

    torchrun --standalone --nproc-per-node 2 benchmarks/loop_alone.py PLAN ROOT TIMES

The first rank writes to TIMES when it had done every step that a run logs. Nothing is saved.
"""

import json
from collections.abc import Mapping
from time import time
from typing import Any

import torch
import torch.distributed as dist
from bare_ddp import loop_arguments
from unsaved import UnsavedReporter

from orchestrator.data.index import index_dataset
from orchestrator.plan.plan import Plan
from orchestrator.train.loop import train
from orchestrator.train.process import prepare_process
from orchestrator.train.world import World


class Recorder(UnsavedReporter):
    """Keeps when steps were done."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}

    def report(self, progress: Any, row: Mapping[str, Any] | None = None) -> None:
        """Keep a logged step's time."""
        if row is not None:
            self.times[row["step"]] = time()


def main() -> None:
    arguments = loop_arguments(__doc__).parse_args()
    plan = Plan.from_json(arguments.plan.read_text())
    prepare_process(plan)
    dist.init_process_group("gloo")
    world = World(rank=dist.get_rank(), size=dist.get_world_size(), device=torch.device("cpu"))
    recorder = Recorder()
    train(plan, index_dataset(arguments.root), world, recorder)
    if world.is_first:
        arguments.times.write_text(json.dumps(recorder.times))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
