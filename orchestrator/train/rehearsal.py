"""A step of one of timm's own models without values, before anything is started: what can't be trained here says so.

On torch's meta device tensors have shapes alone, so a pass takes no time and no memory, whatever the model.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator.errors import PlanError
from orchestrator.models import create_model
from orchestrator.plan.groups import split_evenly
from orchestrator.plan.plan import Plan

_STATISTICS = ("running_mean", "running_var")


def rehearse(plan: Plan) -> tuple[str, ...]:
    """What a person should know of the model; raises PlanError if it can't be trained as planned, and what
    create_model raises."""
    numerics = plan.numerics
    with torch.device("meta"):
        model = create_model(**numerics.model.arguments, num_classes=numerics.num_classes).train()
    faults = list(_statistics_faults(plan, model))
    sizes = {
        len(group)
        for batch_size in (numerics.global_batch_size, numerics.last_batch_size)
        for group in split_evenly(batch_size, numerics.batch_norm_groups)
        if len(group)
    }
    for num_images in sorted(sizes):
        faults += _pass_faults(plan, model, num_images)
        if faults:
            break
    if faults:
        raise PlanError(f"{numerics.model.name} can't be trained as planned:\n" + "\n".join(f"  {f}" for f in faults))
    return tuple(_notes(plan, model))


def _statistics_faults(plan: Plan, model: nn.Module) -> Iterator[str]:
    """Norms whose running statistics wouldn't be a function of the recipe alone."""
    splits_groups = any(share.num_parts > 1 for shares in plan.placement.group_shares for share in shares)
    for name, module in model.named_modules():
        keeps_statistics = any(buffer in _STATISTICS for buffer, _ in module.named_buffers(recurse=False))
        if keeps_statistics and not isinstance(module, _BatchNorm):
            yield (
                f"{name} is a {type(module).__name__}, which keeps running statistics in its own way: they would "
                "depend on how groups fall on workers; take a model with torch's batch norm"
            )
            return
        if splits_groups and isinstance(module, _BatchNorm) and type(module) is not nn.BatchNorm2d:
            yield (
                f"{name} is a {type(module).__name__}, whose groups can't be split over workers: set cluster.workers "
                "to at most train.batch_norm_groups, or cluster.split_groups=false"
            )
            return


def _pass_faults(plan: Plan, model: nn.Module, num_images: int) -> Iterator[str]:
    numerics = plan.numerics
    side = numerics.train_transform.image_size
    what = f"a batch-norm group of {num_images} image{'' if num_images == 1 else 's'} of {side} px"
    try:
        logits = model(torch.empty(num_images, 3, side, side, device="meta"))
    except (AssertionError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        yield f"{what} doesn't pass: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        return
    if not isinstance(logits, Tensor):
        yield f"it returns a {type(logits).__name__} in training, and one tensor of outputs is trained on here"
    elif tuple(logits.shape) != (num_images, numerics.num_classes):
        yield f"it returns {list(logits.shape)} for {what}, not {[num_images, numerics.num_classes]}"


def _notes(plan: Plan, model: nn.Module) -> Iterator[str]:
    name = plan.numerics.model.name
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        yield f"{name} has no batch norm: train.batch_norm_groups says only how a batch is divided into passes."
    elif any(not norm.track_running_stats for norm in norms):
        yield f"{name} has batch norms without running statistics: it is evaluated by those of each batch."
    silenced = getattr(model, "silenced_dropout", None)
    if silenced:
        yield (
            f"{name} would drop values at random in {silenced}: that is switched off, since timm's dropout isn't drawn "
            "by sample and a resumed run would differ."
        )
    frozen = sum(not parameter.requires_grad for parameter in model.parameters())
    if frozen:
        yield f"{name} has {frozen} parameters that timm freezes: they stay as they are."
