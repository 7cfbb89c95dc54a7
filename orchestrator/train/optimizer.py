"""The paper's optimiser: SGD with Nesterov momentum, no dampening, weight decay on every parameter."""

import torch
from torch import Tensor, nn

from orchestrator.plan.plan import OptimizerPlan


def build_optimizer(model: nn.Module, plan: OptimizerPlan) -> torch.optim.SGD:
    """SGD over all parameters, batch norm's included, as in the authors' code.

    It is fused: such a step can be called off on the device, by `step_unless`, without the host knowing of it.
    """
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=plan.lr,
        momentum=plan.momentum,
        nesterov=plan.nesterov,
        weight_decay=plan.weight_decay,
        fused=True,
    )
    if plan.momentum:
        for parameter in model.parameters():  # a first step that is called off would leave them unwritten
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def step_unless(optimizer: torch.optim.SGD, called_off: Tensor) -> None:
    """Make a step, or leave weights and momentum as they are if the bool scalar on the device says so."""
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.found_inf = called_off.to(torch.float32)  # type: ignore[attr-defined]
    optimizer.step()


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use this learning rate from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
