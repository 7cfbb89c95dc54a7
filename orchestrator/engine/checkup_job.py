"""The job of `dnctl doctor --cluster`, run as `python -m orchestrator.engine.checkup_job FOLDER`: one worker a node."""

import os
import sys
import tempfile
from pathlib import Path
from secrets import token_hex
from typing import Any

import ray
import ray.train
import ray.train.torch

from orchestrator.engine import nodes
from orchestrator.engine.network import TorchOnInterface
from orchestrator.engine.short_job import answering, write_answer
from orchestrator.engine.trainer import SMALLEST_RESERVATION
from orchestrator.errors import ClusterError

GROUP_TIMEOUT_S = 60


def main() -> int:
    """Check the cluster that this process belongs to, with runs kept in the folder that the command line names."""
    folder = Path(sys.argv[1])
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(GROUP_TIMEOUT_S))
    ray.init(log_to_driver=False)
    alive = [node for node in ray.nodes() if node["Alive"]]
    free = nodes.free_resources()
    gpus = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in alive}
    with_gpu = [node for node, number in gpus.items() if number]
    # NCCL where every node with GPUs has one to spare; otherwise gloo, which tells of the network alone.
    use_gpu = bool(with_gpu) and all(free.get(node, {}).get("GPU", 0) >= 1 for node in with_gpu)
    worker = {"CPU": SMALLEST_RESERVATION, "GPU": float(use_gpu)}
    num_workers = sum(nodes.room_for(worker, {node: resources}) > 0 for node, resources in free.items())
    probe = str(folder / f".checkup-{token_hex(4)}")
    with answering(), tempfile.TemporaryDirectory(prefix="dnctl-checkup-") as scratch:
        if num_workers == 0:
            raise ClusterError("all nodes are busy: `dnctl cluster status` says with what")
        result = ray.train.torch.TorchTrainer(
            lambda: _check(probe),
            torch_config=TorchOnInterface(backend="nccl" if use_gpu else "gloo", timeout_s=GROUP_TIMEOUT_S),
            scaling_config=ray.train.ScalingConfig(
                num_workers=num_workers,
                use_gpu=use_gpu,
                resources_per_worker=worker,
                placement_strategy="STRICT_SPREAD",
            ),
            run_config=ray.train.RunConfig(name="checkup", storage_path=scratch),
        ).fit()
        write_answer({**result.return_value, "num_nodes": len(alive), "gpus_in_ray": sum(gpus.values())})
    return 0


def _check(probe: str) -> dict[str, Any]:
    """What runs on each rank; the import is here so that Ray's controller doesn't pay for torch."""
    from orchestrator.engine.checkup import check_group
    from orchestrator.train.world import World

    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    world = World(rank=context.get_world_rank(), size=context.get_world_size(), device=device)
    storage = Path(probe).parent
    if world.is_first:
        storage.mkdir(parents=True, exist_ok=True)
    check = check_group(world, Path(probe))
    return {**check.to_json(), "faults": list(check.faults(storage))}


if __name__ == "__main__":
    sys.exit(main())
