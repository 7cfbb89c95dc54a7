"""Our DenseNets among timm's models: import this, and `timm.create_model("dnctl_densenet121")` and so on find them."""

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from orchestrator.models.densenet import DenseNet
from orchestrator.models.registry import changed_architecture
from orchestrator.plan.architecture import DenseNetArchitecture
from orchestrator.plan.networks import DEFAULT_TASKS, NETWORKS, Architecture

_ARCHITECTURE_FIELDS: Final = tuple(field.name for field in dataclasses.fields(DenseNetArchitecture))


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
            architecture=changed_architecture(name, changes),
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
