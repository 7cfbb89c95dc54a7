"""timm's own models, made as timm makes them, but for dropout, with which a run couldn't be repeated."""

import difflib
from typing import Any

import timm
from torch import nn

from orchestrator.errors import NotFoundError, UsageError


def timm_model(name: str, *, num_classes: int, in_chans: int, **options: Any) -> nn.Module:
    """timm's model with random weights.

    options: arguments of timm's model, such as zero_init_last.
    Raises NotFoundError for an unknown name, with the nearest ones, and UsageError for options that it hasn't. Dropout,
    which timm draws from a generator that no checkpoint holds, is switched off where the model has it by default
    (`silenced_dropout` says where), and refused where options ask for it.
    """
    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise NotFoundError(f"timm has no model {name!r}. Nearest: {', '.join(nearest) or 'none'}.")
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=num_classes, in_chans=in_chans, **options
        )
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"timm can't make {name} with {_given(options)}: {_first_line(error)}") from error
    silenced = _silence(model)
    if silenced and any("drop" in option for option in options):
        raise UsageError(
            f"timm:{name} with {_given(options)} drops values at random in {_some(silenced)}, by numbers that belong "
            "to no sample, so a resumed run would differ; leave the option out"
        )
    model.silenced_dropout = _some(silenced) if silenced else None  # type: ignore[assignment]
    return model


def _silence(model: nn.Module) -> tuple[str, ...]:
    """Set to 0 whatever draws random numbers in training; returns where that was.

    Dropout, and timm's DropPath, DropBlock and PatchDropout; a model's own `drop_rate` before its classifier.
    """
    found = []
    for path, module in model.named_modules():
        names = ("p", "drop_prob", "prob", "drop_rate") if "Drop" in type(module).__name__ else ("drop_rate",)
        rates = [name for name in names if isinstance(getattr(module, name, None), float) and getattr(module, name) > 0]
        for name in rates:
            setattr(module, name, 0.0)
        if rates:
            found.append(path or type(module).__name__)
    return tuple(found)


def _some(paths: tuple[str, ...]) -> str:
    return f"{', '.join(paths[:2])}{f' and {len(paths) - 2} more' if len(paths) > 2 else ''}"


def _given(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
