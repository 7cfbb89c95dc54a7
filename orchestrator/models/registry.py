"""Models by name: ours, registered with timm under names of their own (`dnctl_densenet121`), and timm's."""

import dataclasses
import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from orchestrator.errors import NotFoundError, UsageError
from orchestrator.models.densenet import DenseNet, Init
from orchestrator.plan.architecture import (
    DEFAULT_TASKS,
    DENSENETS,
    TIMM_PREFIX,
    DenseNetArchitecture,
    find_architecture,
)

_ARCHITECTURE_FIELDS: Final = tuple(field.name for field in dataclasses.fields(DenseNetArchitecture))


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    init: Init = "authors",
    memory_efficient: bool = False,
    seed: int | None = None,
    **architecture: Any,
) -> nn.Module:
    """The model of that name, in training mode, on the CPU unless torch's default device is another.

    name: one of `DENSENETS`, or `timm:NAME` for timm's own model, which initialises itself and takes neither dropout,
        recomputation nor changes of its architecture from here.
    seed: draw the weights from this alone, on the CPU, and leave torch's generators as they were.
    architecture: fields of `DenseNetArchitecture` that differ from the named network's; the others stay as they are.
    Raises NotFoundError for an unknown name, with the nearest ones, and UsageError for what can't be built.
    """
    options = {"drop_rate": drop_rate, "memory_efficient": memory_efficient, **architecture}
    with _weights_drawn_from(seed):
        if name.startswith(TIMM_PREFIX):
            _refuse_options(name, options)
            return _timm_model(name.removeprefix(TIMM_PREFIX), num_classes=num_classes, in_chans=in_chans)
        return DenseNet(
            _architecture(name, architecture),
            num_classes=num_classes,
            in_chans=in_chans,
            drop_rate=drop_rate,
            init=init,
            memory_efficient=memory_efficient,
        )


def _architecture(name: str, changes: dict[str, Any]) -> DenseNetArchitecture:
    named = find_architecture(name)
    unknown = sorted(changes.keys() - set(_ARCHITECTURE_FIELDS))
    if unknown:
        raise UsageError(f"{name} has no {', '.join(unknown)}; it has {', '.join(_ARCHITECTURE_FIELDS)}")
    return dataclasses.replace(named, **changes)


def _timm_model(name: str, *, num_classes: int, in_chans: int) -> nn.Module:
    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise NotFoundError(f"timm has no model {name!r}. Nearest: {', '.join(nearest) or 'none'}.")
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_chans)
    return model


def _refuse_options(name: str, options: dict[str, Any]) -> None:
    asked_for = sorted(option for option, value in options.items() if value)
    if asked_for:
        raise UsageError(
            f"{name} is timm's and is trained as timm made it, so {', '.join(asked_for)} can't be set: its dropout "
            "isn't drawn by sample, and its recomputation updates running statistics twice a step"
        )


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


def _timm_config(architecture: DenseNetArchitecture) -> dict[str, Any]:
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


# timm finds the configurations under this name in the module of the functions that it registers.
default_cfgs = generate_default_cfgs(
    {_registered_name(name): _timm_config(architecture) for name, architecture in DENSENETS.items()}
)
for _name in DENSENETS:
    register_model(_entry_point(_name))
