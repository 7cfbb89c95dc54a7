"""One of several ranks that train with replayed steps; prints what came of it (tests/unit/test_train_graph.py)."""

import os
import sys

import torch
import torch.distributed as dist

from orchestrator.train.world import World
from tests.unit.test_train_graph import CPU, Replays, digest, plan_of, train

if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    world = World(rank=int(os.environ["RANK"]), size=int(os.environ["WORLD_SIZE"]), device=CPU)
    capture = Replays()
    step, totals, left = train(plan_of(), capture, world=world)
    assert step.graphs == "replayed"
    sys.stdout.write(digest(totals, left))
    dist.destroy_process_group()
