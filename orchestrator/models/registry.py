"""Models by name: ours, DenseNets among them registered with timm as `dnctl_densenet121` and so on, and timm's."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from orchestrator.errors import UsageError
from orchestrator.models.block import BlockKind
from orchestrator.models.densenet import DenseNet
from orchestrator.models.initial import Init
from orchestrator.models.residual import ResidualNet
from orchestrator.models.timm_model import timm_model
from orchestrator.plan.architecture import DenseNetArchitecture
from orchestrator.plan.networks import DEFAULT_TASKS, NETWORKS, TIMM_PREFIX, Architecture, find_architecture

_ARCHITECTURE_FIELDS: Final = tuple(field.name for field in dataclasses.fields(DenseNetArchitecture))


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
            return timm_model(name.removeprefix(TIMM_PREFIX), num_classes=num_classes, in_chans=in_chans, **changes)
        architecture = _architecture(name, changes)
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


def _architecture(name: str, changes: dict[str, Any]) -> Architecture:
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


def _registered_name(name: str) -> str:
    return f"dnctl_{name}"


def _timm_config(architecture: Architecture) -> dict[str, Any]:
    """What timm wants to know of a model for which there are no weights to download."""
    task = DEFAULT_TASKS[architecture.stem]
    return {
        "num_classes": task.num_classes,
        "input_size": (3, task.image_size, task.image_size),
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "first_conv": "features.conv0",
        "classifier": "classifier",
    }


def _entry_point(name: str) -> Callable[..., nn.Module]:
    """A function that timm calls to make our model `name`, with timm's builder around it."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        changes = {field: kwargs.pop(field) for field in _ARCHITECTURE_FIELDS if field in kwargs}
        model: nn.Module = build_model_with_cfg(
            DenseNet,
            create.__name__,
            pretrained,
            architecture=_architecture(name, changes),
            feature_cfg={"flatten_sequential": True},
            **kwargs,
        )
        return model

    create.__name__ = _registered_name(name)
    return create


_DENSENETS: Final = {
    name: architecture for name, architecture in NETWORKS.items() if isinstance(architecture, DenseNetArchitecture)
}
# timm finds the configurations under this name in the module of the functions that it registers.
default_cfgs = generate_default_cfgs(
    {_registered_name(name): _timm_config(architecture) for name, architecture in _DENSENETS.items()}
)
for _name in _DENSENETS:
    register_model(_entry_point(_name))
