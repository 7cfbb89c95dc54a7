"""The Ray Train trainer of a run: placement, worker groups and restarts are Ray's."""

import logging
import re
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import ray
import ray.train
import ray.train.torch

from orchestrator.engine.network import TorchOnInterface
from orchestrator.engine.planning import plan_on_cluster
from orchestrator.engine.task import WorkerTask
from orchestrator.errors import ClusterError
from orchestrator.plan.cluster import ClusterShape
from orchestrator.recipe.load import load_recipe
from orchestrator.run import files
from orchestrator.run.directory import AttemptDirectory, RunDirectory

_log = logging.getLogger(__name__)

MAX_FAULT_LENGTH = 160
NODES_TIMEOUT_S = 180.0
SMALLEST_RESERVATION = 0.001
"""CPU cores of a worker that reserves none: Ray places nobody who asks for nothing."""


def fit_with_ray(run: RunDirectory, attempt: AttemptDirectory, holder: str, *, num_nodes: int = 1) -> None:
    """Train a run on the Ray cluster that this process belongs to, to the end. Raises what Ray raises.

    num_nodes: how many nodes are on their way; the plan is for all of them.
    """
    ray.init(log_to_driver=False)
    _log.info("connected to Ray at %s", ray.get_runtime_context().gcs_address)
    _wait_for_nodes(num_nodes)
    recipe = load_recipe(run.recipe)
    plan = plan_on_cluster(run, recipe, cluster_shape())
    files.write_atomically(attempt.path / "plan.json", plan.to_json().encode())
    assert recipe.data.root is not None
    task = WorkerTask(
        run=run,
        plan=plan,
        holder=holder,
        data_root=recipe.data.root,
        damaged=recipe.data.damaged,
    )
    placement = plan.placement
    trainer = ray.train.torch.TorchTrainer(
        lambda: _work(task),
        torch_config=TorchOnInterface(backend="nccl" if placement.device == "cuda" else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=placement.world_size,
            use_gpu=placement.device == "cuda",
            resources_per_worker={
                "CPU": placement.cpus_per_worker or SMALLEST_RESERVATION,
                "GPU": placement.gpus_per_worker,
            },
        ),
        run_config=ray.train.RunConfig(
            name=f"attempt-{attempt.number}",
            storage_path=str(run.path / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=plan.execution.max_failures),
            callbacks=[_FailureRecorder(run.path)],
        ),
    )
    _log.info("asking Ray for %d workers", placement.world_size)
    trainer.fit()


def _wait_for_nodes(num_nodes: int) -> None:
    deadline = monotonic() + NODES_TIMEOUT_S
    while (num_alive := sum(node["Alive"] for node in ray.nodes())) < num_nodes:
        if monotonic() > deadline:
            raise ClusterError(
                f"{num_alive} of {num_nodes} nodes have joined Ray in {NODES_TIMEOUT_S:.0f} s; the log of the job says "
                "what became of the others"
            )
        sleep(0.5)


def _work(task: WorkerTask) -> None:
    """What runs on each rank. The import is here so that Ray's controller and the driver don't pay for the network."""
    from orchestrator.engine.worker import train_worker

    train_worker(task)


def cluster_shape() -> ClusterShape:
    """What the connected cluster has."""
    resources: dict[str, Any] = ray.cluster_resources()
    gpu_types = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
    return ClusterShape(
        num_cpus=int(resources.get("CPU", 0)),
        num_gpus=int(resources.get("GPU", 0)),
        nodes=len(ray.nodes()),
        gpu_type=gpu_types[0] if gpu_types else None,
        address=ray.get_runtime_context().gcs_address,
    )


class _FailureRecorder(ray.train.UserCallback):  # type: ignore[misc]
    """Notes in the run directory that workers failed, from Ray's controller, which is the first to know."""

    def __init__(self, run_path: Path) -> None:
        self._run = RunDirectory(run_path)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        attempt = self._run.attempt(self._run.newest_attempt()[0])
        faults = {rank: _what_happened(error) for rank, error in sorted(worker_exceptions.items())}
        reason = "; ".join(f"worker {rank}: {fault}" for rank, fault in faults.items())
        number = len(attempt.worker_failures)
        files.write_json(
            attempt.path / f"worker-failure-{number:03d}.json", {"reason": f"starting again after {reason}"}
        )


def _what_happened(error: Exception) -> str:
    """The line of an exception that says it; Ray's texts hold whole tracebacks of the worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    line = (telling or lines or [type(error).__name__])[-1 if telling else 0]
    return line[:MAX_FAULT_LENGTH]
