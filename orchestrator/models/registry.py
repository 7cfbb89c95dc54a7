"""Models by name: ours, and timm's, for which alone timm is imported: that takes ten seconds of a processor."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import torch
from torch import nn

from orchestrator.errors import UsageError
from orchestrator.models.block import BlockKind
from orchestrator.models.densenet import DenseNet
from orchestrator.models.initial import Init
from orchestrator.models.residual import ResidualNet
from orchestrator.plan.architecture import DenseNetArchitecture
from orchestrator.plan.networks import TIMM_PREFIX, Architecture, find_architecture


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    stochastic_depth: float = 0.0,
    init: Init = "authors",
    memory_efficient: bool = False,
    block: BlockKind = "reference",
    seed: int | None = None,
    **changes: Any,
) -> nn.Module:
    """The model of that name, in training mode, on the CPU unless torch's default device is another.

    name: one of `NETWORKS`, another one of their families, or `timm:NAME` for timm's own model, which initialises
        itself and takes neither dropout, stochastic depth nor recomputation from here.
    block: "fused" computes a DenseNet's blocks in less time and memory; the same parameters under the same names.
    seed: draw the weights from this alone, on the CPU, and leave torch's generators as they were.
    changes: fields of the architecture that differ from the named network's, the others stay as they are; or arguments
        of timm's model.
    Raises NotFoundError for an unknown name, with the nearest ones, and UsageError for what can't be built.
    """
    with _weights_drawn_from(seed):
        if name.startswith(TIMM_PREFIX):
            _refuse(
                name,
                drop_rate=drop_rate,
                stochastic_depth=stochastic_depth,
                memory_efficient=memory_efficient,
                block=block != "reference",
            )
            model: nn.Module = import_module("orchestrator.models.timm_model").timm_model(
                name.removeprefix(TIMM_PREFIX), num_classes=num_classes, in_chans=in_chans, **changes
            )
            return model
        architecture = changed_architecture(name, changes)
        if isinstance(architecture, DenseNetArchitecture):
            _refuse(name, stochastic_depth=stochastic_depth)
            return DenseNet(
                architecture,
                num_classes=num_classes,
                in_chans=in_chans,
                drop_rate=drop_rate,
                init=init,
                memory_efficient=memory_efficient,
                block=block,
            )
        _refuse(name, memory_efficient=memory_efficient, block=block != "reference")
        return ResidualNet(
            architecture,
            num_classes=num_classes,
            in_chans=in_chans,
            drop_rate=drop_rate,
            stochastic_depth=stochastic_depth,
            init=init,
        )


def changed_architecture(name: str, changes: dict[str, Any]) -> Architecture:
    """The network of that name with other fields. Raises NotFoundError for the name, UsageError for a field."""
    named = find_architecture(name)
    fields = [field.name for field in dataclasses.fields(named)]
    unknown = sorted(changes.keys() - set(fields))
    if unknown:
        raise UsageError(f"{name} has no {', '.join(unknown)}; it has {', '.join(fields)}")
    return dataclasses.replace(named, **changes)


def _refuse(name: str, **options: float | bool) -> None:
    asked_for = sorted(option for option, value in options.items() if value)
    if asked_for:
        raise UsageError(f"{name} has no {', '.join(asked_for)} that a recipe can set; {_WHO_HAS[asked_for[0]]}")


_WHO_HAS: Final = {
    "drop_rate": "timm's own isn't drawn by sample, so that a resumed run would differ",
    "stochastic_depth": "the families cifarresnet, preresnet and wideresnet have",
    "memory_efficient": "our DenseNets have",
    "block": "our DenseNets have fused ones",
}


@contextmanager
def _weights_drawn_from(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield
