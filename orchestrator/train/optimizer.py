"""The paper's optimiser: SGD with Nesterov momentum, no dampening, weight decay on every parameter."""

import torch
from torch import nn

from orchestrator.plan.plan import OptimizerPlan


def build_optimizer(model: nn.Module, plan: OptimizerPlan) -> torch.optim.SGD:
    """SGD over all parameters, batch norm's included, as in the authors' code; fused where the device allows."""
    on_gpu = next(model.parameters()).is_cuda
    return torch.optim.SGD(
        model.parameters(),
        lr=plan.lr,
        momentum=plan.momentum,
        nesterov=plan.nesterov,
        weight_decay=plan.weight_decay,
        fused=on_gpu or None,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use this learning rate from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
