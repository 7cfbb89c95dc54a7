"""The paper's optimiser: SGD with Nesterov momentum, no dampening, weight decay on every parameter."""

import torch
from torch import Tensor, nn

from orchestrator.plan.plan import OptimizerPlan


def build_optimizer(model: nn.Module, plan: OptimizerPlan) -> torch.optim.SGD:
    """SGD over all parameters, batch norm's included, as in the authors' code.

    It is fused: such a step can be called off on the device, by `step_unless`, without the host knowing of it. On a GPU
    the learning rate is a float32 there, so that a recorded step can be given another one; on a CPU it is a number.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=torch.tensor(plan.lr, dtype=torch.float32, device=device) if device.type == "cuda" else plan.lr,
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


def scaled_step_unless(optimizer: torch.optim.SGD, scaler: torch.amp.GradScaler, called_off: Tensor) -> None:
    """The same with loss scaling, which skips a step that overflowed, and changes the scale, also on the device.

    Gradients must have been unscaled. A step that is called off leaves the scale as it is.
    """
    overflows = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values()
    overflowed = torch.stack([found.to(called_off.device) for found in overflows]).sum() > 0
    step_unless(optimizer, called_off | overflowed)
    assert scaler._scale is not None
    assert scaler._growth_tracker is not None
    state = (scaler._scale, scaler._growth_tracker)
    before = [value.clone() for value in state]
    scaler.update()
    for value, was in zip(state, before, strict=True):
        value.copy_(torch.where(called_off, was, value))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use this learning rate from the next step on."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate
