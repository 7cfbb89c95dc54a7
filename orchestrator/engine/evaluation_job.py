"""The job of `dnctl eval --cluster`, run as `python -m orchestrator.engine.evaluation_job TASK`.

It has a worker on every free GPU, or, on a cluster without, on every node.
"""

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import ray
import ray.train
import ray.train.torch

from orchestrator.engine import nodes
from orchestrator.engine.evaluation import EvaluationTask
from orchestrator.engine.network import TorchOnInterface
from orchestrator.engine.short_job import answering, write_answer

TIMEOUT_S = 600


def main() -> int:
    """Evaluate what the command line describes, on the cluster that this process belongs to."""
    task = EvaluationTask(**json.loads(sys.argv[1]))
    ray.init(log_to_driver=False)
    shape = nodes.cluster_shape()
    use_gpu = shape.num_gpus > 0
    free = nodes.room_for({"GPU" if use_gpu else "CPU": 1.0}, nodes.free_resources())
    usable = [node for node in shape.each if (node.num_gpus if use_gpu else node.num_cpus)]
    num_workers = max(1, free if use_gpu else min(free, len(usable)))  # without GPUs a worker has its node's cores
    num_threads = max(1, min((node.num_cpus // max(1, node.num_gpus) for node in usable), default=1))
    with answering(), tempfile.TemporaryDirectory(prefix="dnctl-evaluation-") as scratch:
        result = ray.train.torch.TorchTrainer(
            lambda: _evaluate(task, num_threads),
            torch_config=TorchOnInterface(backend="nccl" if use_gpu else "gloo", timeout_s=TIMEOUT_S),
            scaling_config=ray.train.ScalingConfig(
                num_workers=num_workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": 0.001 if use_gpu else 1, "GPU": int(use_gpu)},
                placement_strategy="SPREAD",
            ),
            run_config=ray.train.RunConfig(name="evaluation", storage_path=scratch),
        ).fit()
        write_answer(result.return_value)
    return 0


def _evaluate(task: EvaluationTask, num_threads: int) -> dict[str, Any]:
    """What runs on each rank. The imports are here so that Ray's controller doesn't pay for torch."""
    from orchestrator.data.index import build_manifest
    from orchestrator.engine.planning import load_plan
    from orchestrator.run.checkpoints import read_checkpoint
    from orchestrator.run.directory import RunDirectory
    from orchestrator.train.assess import assess, check_classes, model_of_checkpoint, protocol_of
    from orchestrator.train.world import World

    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    world = World(rank=context.get_world_rank(), size=context.get_world_size(), device=device)
    path = Path(task.checkpoint)
    plan = load_plan(RunDirectory(path.parent.parent))
    assert plan is not None
    images = build_manifest(task.root, task.split)
    check_classes(images, plan.numerics.num_classes, source=task.checkpoint)
    model, _ = model_of_checkpoint(plan.numerics, read_checkpoint(path), source=task.checkpoint)
    protocol = protocol_of(
        plan.numerics, crops=task.crops, loader=task.loader, batch_size=task.batch_size, num_threads=num_threads
    )
    world.gather_text("")  # all are ready: what follows is timed
    began_at = perf_counter()
    accuracy = assess(model, images, protocol, world=world)
    return {
        **accuracy.to_json(),
        "crops": protocol.transform.crops,
        "loader": protocol.loader,
        "workers": world.size,
        "device": world.device_type,
        "seconds": perf_counter() - began_at,
    }


if __name__ == "__main__":
    sys.exit(main())
