"""What a process must set before it trains: threads and determinism."""

import os

import torch

from orchestrator.plan.plan import Plan


def prepare_process(plan: Plan) -> None:
    """Set the number of compute threads and, if the plan says so, deterministic algorithms."""
    torch.set_num_threads(plan.placement.compute_threads)
    deterministic = plan.numerics.deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    # Filling every new tensor would find reads of what was never written; it costs a pass over each output.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
