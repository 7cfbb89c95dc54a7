"""The network of a plan, on its device, as it is before the first step."""

import torch
from torch import nn

from orchestrator.models import create_model
from orchestrator.models.block.select import kernels_of
from orchestrator.plan.plan import Plan


def build_network(plan: Plan, device: torch.device) -> nn.Module:
    """The network in training mode; its weights are a function of the seed."""
    numerics = plan.numerics
    model = create_model(
        **numerics.model.arguments,
        num_classes=numerics.num_classes,
        memory_efficient=plan.execution.memory_efficient,
        seed=numerics.seed,
    ).to(device)
    if numerics.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model.train()


def compile_kernels(plan: Plan, device: torch.device) -> dict[str, str | float] | None:
    """Have what the fused block needs compiled on this machine before the first step; what it is and how long it took.

    None for a network without fused blocks.
    """
    if plan.numerics.model.block != "fused":
        return None
    kernels = kernels_of(device)
    return {"kernels": kernels.name, "compile_s": kernels.compile_s}
