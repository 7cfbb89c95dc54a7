"""From the recipe's section `model` to the network of a plan, or to what is wrong with it."""

from collections.abc import Iterator

from orchestrator.errors import NotFoundError, UsageError
from orchestrator.plan.architecture import DenseNetArchitecture
from orchestrator.plan.networks import TIMM_PREFIX, Architecture, Network, find_network
from orchestrator.plan.plan import Block, ModelPlan
from orchestrator.recipe.schema import Model, Recipe

_SHAPE_KEYS = ("depth", "growth_rate", "compression")
_DEFAULTS = Model(name="any")
# What timm.create_model takes besides a network's own arguments, and what other keys of a recipe say.
_NO_OPTIONS = {
    *("cache_dir", "checkpoint_path", "exportable", "features_only", "no_jit", "pretrained", "pretrained_cfg"),
    *("pretrained_cfg_overlay", "pretrained_strict", "scriptable"),
    *("block", "drop_rate", "in_chans", "init", "memory_efficient", "name", "num_classes", "seed", "stochastic_depth"),
}


def model_plan(model: Model, block: Block, weights_sha256: str | None) -> ModelPlan:
    """The network of a recipe without `model_faults`, with the block that was chosen for it."""
    is_timm = model.name.startswith(TIMM_PREFIX)
    network = None if is_timm else _find(model)
    return ModelPlan(
        name=model.name if network is None else network.name,
        architecture=None if network is None else network.architecture,
        options=tuple(sorted(model.options.items())),
        drop_rate=model.drop_rate,
        stochastic_depth=model.stochastic_depth,
        init="timm" if is_timm else model.init,
        block=block,
        weights_sha256=weights_sha256,
    )


def model_faults(recipe: Recipe) -> Iterator[str]:
    """What can't be in the section `model`, each fault with its key; which models timm has isn't known here."""
    model = recipe.model
    if model.name.startswith(TIMM_PREFIX):
        if model.name == TIMM_PREFIX:
            yield f"{recipe.where('model.name')}: found {model.name!r} without a name; allowed: such as timm:resnet50"
        keys = (*_SHAPE_KEYS, "drop_rate", "stochastic_depth", "memory_efficient")
        if model.block == "fused":
            yield from _unusable(recipe, ("block",), "it is for our DenseNets")
        yield from _unusable(recipe, keys, "timm's own models are trained as timm makes them with model.options")
        for key in sorted(model.options.keys() & _NO_OPTIONS):
            yield f"{recipe.where(f'model.options.{key}')}: not an option of the network itself; leave it out"
        return
    yield from _unusable(recipe, ("options",), "it is for timm's own models, timm:NAME")
    try:
        network = _find(model)
    except (NotFoundError, UsageError) as error:
        blamed = next((key for key in _SHAPE_KEYS if getattr(model, key) is not None), "name")
        yield f"{recipe.where(f'model.{blamed}')}: {error}"
        return
    if isinstance(network.architecture, DenseNetArchitecture):
        yield from _unusable(
            recipe, ("stochastic_depth",), "it is for the families cifarresnet, preresnet and wideresnet"
        )
    else:
        of_densenets = ("memory_efficient", "block") if model.block == "fused" else ("memory_efficient",)
        yield from _unusable(recipe, of_densenets, "it is for our DenseNets")


def architecture_of(model: Model) -> Architecture | None:
    """Of a recipe's network; None for timm's own."""
    return None if model.name.startswith(TIMM_PREFIX) else _find(model).architecture


def _find(model: Model) -> Network:
    return find_network(model.name, depth=model.depth, growth_rate=model.growth_rate, compression=model.compression)


def _unusable(recipe: Recipe, keys: tuple[str, ...], why: str) -> Iterator[str]:
    for key in keys:
        if getattr(recipe.model, key) != getattr(_DEFAULTS, key):
            yield f"{recipe.where(f'model.{key}')}: {why}; leave it out"
