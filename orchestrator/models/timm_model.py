"""timm's own models, made as timm makes them, and refused where a run of theirs couldn't be repeated or divided."""

import difflib
from typing import Any

import timm
from torch import nn

from orchestrator.errors import NotFoundError, UsageError


def timm_model(name: str, *, num_classes: int, in_chans: int, **options: Any) -> nn.Module:
    """timm's model with random weights.

    options: arguments of timm's model, such as zero_init_last. Raises NotFoundError for an unknown name, with the
    nearest ones, and UsageError for options that it hasn't, and for dropout, which timm draws from a generator that no
    checkpoint holds.
    """
    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise NotFoundError(f"timm has no model {name!r}. Nearest: {', '.join(nearest) or 'none'}.")
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=num_classes, in_chans=in_chans, **options
        )
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"
        raise UsageError(f"timm can't make {name} with {given}: {_first_line(error)}") from error
    random = sorted(_random_modules(model))
    if random:
        raise UsageError(
            f"timm:{name} drops values at random in {', '.join(random[:3])}{' and more' if len(random) > 3 else ''}, "
            "by numbers that belong to no sample, so a resumed run would differ; set its rates to 0 in model.options, "
            "such as drop_rate and drop_path_rate"
        )
    return model


def _random_modules(model: nn.Module) -> set[str]:
    """The modules that draw random numbers in training: dropout, and timm's DropPath, DropBlock and PatchDropout."""
    found = set()
    for path, module in model.named_modules():
        rates = (getattr(module, name, 0) for name in ("p", "drop_prob", "prob"))
        if "Drop" in type(module).__name__ and any(isinstance(rate, float) and rate > 0 for rate in rates):
            found.add(path)
        if isinstance(getattr(module, "drop_rate", 0), float) and module.drop_rate > 0:
            found.add(path or type(module).__name__)
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
