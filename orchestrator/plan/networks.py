"""Which networks a recipe can name, and what each is made of; free of torch.

A network of a family is named by the family, its depth and, where it has one, its width: `densenetbc100_12` is a
DenseNet-BC of 100 layers and growth rate 12. Any depth that the family's definition allows will do. Sources: Huang et
al., CVPR 2017, section 4 and Table 2, for DenseNets; `residual.py` names those of the others.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from orchestrator.errors import NotFoundError, UsageError
from orchestrator.plan.architecture import DENSENETS, DenseNetArchitecture, Stem
from orchestrator.plan.residual import ResidualArchitecture, Unit

Architecture = DenseNetArchitecture | ResidualArchitecture

TIMM_PREFIX: Final = "timm:"
"""A model called `timm:NAME` is timm's own; it can't be counted without torch."""

_BOTTLENECK_WIDTH: Final = 4
_COMPRESSION: Final = 0.5
_CIFAR_INIT_FEATURES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Networks for 32 px images, alike but for depth and width. Their three blocks or stages have n layers or units.

    layers_per_n: layers that the three together have for each of n.
    other_layers: those outside of them.
    width: what the number behind the underscore is called, or None where names have none.
    build: the network of (n, width).
    """

    layers_per_n: int
    other_layers: int
    width: str | None
    build: Callable[[int, int], Architecture]

    def network(self, name: str, depth: int, width: int) -> Architecture:
        """The network of that depth. Raises UsageError, with the nearest depths, if no n gives it.

        name: what to call it in a message.
        """
        n, remainder = divmod(depth - self.other_layers, self.layers_per_n)
        if n < 1 or remainder:
            nearest = sorted({max(n, 1), max(n, 0) + 1})
            depths = " and ".join(str(self.layers_per_n * each + self.other_layers) for each in nearest)
            raise UsageError(
                f"There can be no {name}: depth is {depth}, must be {self.layers_per_n}n + {self.other_layers} with n "
                f"at least 1; nearest {'is' if len(nearest) == 1 else 'are'} {depths}"
            )
        return self.build(n, width)


def _densenet(n: int, growth_rate: int, *, bottleneck: bool, compression: float) -> DenseNetArchitecture:
    is_bc = bottleneck and compression < 1
    return DenseNetArchitecture(
        growth_rate=growth_rate,
        block_config=(n, n, n),
        num_init_features=2 * growth_rate if is_bc else _CIFAR_INIT_FEATURES,
        bn_size=_BOTTLENECK_WIDTH if bottleneck else 0,
        compression=compression,
        stem="cifar",
    )


def _residual(n: int, width: int, *, unit: Unit, narrowest: int) -> ResidualArchitecture:
    first = narrowest * width
    return ResidualArchitecture(unit=unit, units_per_stage=n, widths=(first, 2 * first, 4 * first))


_GROWTH_RATE: Final = "growth_rate"

FAMILIES: Final[Mapping[str, Family]] = {
    "densenet": Family(
        layers_per_n=3, other_layers=4, width=_GROWTH_RATE, build=partial(_densenet, bottleneck=False, compression=1.0)
    ),
    "densenetb": Family(
        layers_per_n=6, other_layers=4, width=_GROWTH_RATE, build=partial(_densenet, bottleneck=True, compression=1.0)
    ),
    "densenetc": Family(
        layers_per_n=3,
        other_layers=4,
        width=_GROWTH_RATE,
        build=partial(_densenet, bottleneck=False, compression=_COMPRESSION),
    ),
    "densenetbc": Family(
        layers_per_n=6,
        other_layers=4,
        width=_GROWTH_RATE,
        build=partial(_densenet, bottleneck=True, compression=_COMPRESSION),
    ),
    "cifarresnet": Family(
        layers_per_n=6, other_layers=2, width=None, build=partial(_residual, unit="basic", narrowest=16)
    ),
    "preresnet": Family(
        layers_per_n=9, other_layers=2, width=None, build=partial(_residual, unit="bottleneck", narrowest=64)
    ),
    "wideresnet": Family(
        layers_per_n=6, other_layers=4, width="width", build=partial(_residual, unit="preactivated", narrowest=16)
    ),
}

_NAME: Final = re.compile(rf"(?P<family>{'|'.join(FAMILIES)})(?P<depth>\d+)(?:_(?P<width>\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network by its full name."""

    name: str
    architecture: Architecture


def find_network(
    name: str, *, depth: int | None = None, growth_rate: int | None = None, compression: float | None = None
) -> Network:
    """The network of that name, with what is given changed.

    name: one of DENSENETS; a family with depth and width, such as densenetbc100_12; or the family alone, with depth
        and growth_rate.
    Raises NotFoundError, with the nearest names, or UsageError for what can't be.
    """
    if name in DENSENETS:
        network = Network(name=name, architecture=DENSENETS[name])
        given = [key for key, value in {"depth": depth, "growth_rate": growth_rate}.items() if value is not None]
        if given:
            raise UsageError(f"{name} is defined by its blocks and has no {given[0]} to set; densenetbc has")
    else:
        network = _of_family(name, depth, growth_rate)
    if compression is None:
        return network
    if not isinstance(network.architecture, DenseNetArchitecture):
        raise UsageError(f"{name} is no DenseNet and has no compression")
    return replace(network, architecture=replace(network.architecture, compression=compression))


def find_architecture(name: str) -> Architecture:
    """What the network of that name is made of. Raises NotFoundError or UsageError."""
    return find_network(name).architecture


def _of_family(name: str, depth: int | None, growth_rate: int | None) -> Network:
    parts = _NAME.fullmatch(name)
    family_name = parts["family"] if parts else name
    family = FAMILIES.get(family_name)
    if family is None:
        raise _not_found(name)
    named_depth, named_width = (parts["depth"], parts["width"]) if parts else (None, None)
    if growth_rate is not None and family.width != _GROWTH_RATE:
        raise UsageError(f"{family_name} networks have no growth_rate")
    if depth is None and named_depth is not None:
        depth = int(named_depth)
    width = growth_rate if growth_rate is not None or named_width is None else int(named_width)
    if named_depth is not None and (width is None) != (family.width is None):
        raise _not_found(name)
    if depth is None or (width is None and family.width is not None):
        raise UsageError(
            f"{name} is a family of networks: name one in full, such as {next(n for n in NETWORKS if _is_of(n, name))}"
            f"{', or give depth and growth_rate' if family.width == _GROWTH_RATE else ''}"
        )
    full_name = f"{family_name}{depth}" + (f"_{width}" if family.width else "")
    return Network(name=full_name, architecture=family.network(full_name, depth, 1 if width is None else width))


def _is_of(name: str, family: str) -> bool:
    parts = _NAME.fullmatch(name)
    return parts is not None and parts["family"] == family and name not in DENSENETS


def _not_found(name: str) -> NotFoundError:
    nearest = difflib.get_close_matches(name, NETWORKS, n=3) or list(DENSENETS)
    return NotFoundError(
        f"There is no model {name!r}. Nearest: {', '.join(nearest)}. timm's models are called {TIMM_PREFIX}NAME."
    )


NETWORKS: Final[Mapping[str, Architecture]] = {
    **DENSENETS,
    **{
        name: find_architecture(name)
        for name in (
            "densenet40_12",
            "densenet100_12",
            "densenet100_24",
            "densenetbc100_12",
            "densenetbc250_24",
            "densenetbc190_40",
            "densenetbc40_36",
            "densenetbc40_48",
            "densenetbc40_60",
            "densenetb100_12",
            "densenetc100_12",
            "cifarresnet110",
            "preresnet164",
            "preresnet1001",
            "wideresnet16_4",
            "wideresnet16_8",
            "wideresnet28_10",
        )
    },
}
"""The networks of the paper's tables and of the authors' README, those that Table 2 compares with, and examples of -B
and -C, which Figure 4 has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a network is trained for where nobody says otherwise; image_size in pixels a side."""

    num_classes: int
    image_size: int


DEFAULT_TASKS: Mapping[Stem, Task] = {
    "imagenet": Task(num_classes=1000, image_size=224),
    "cifar": Task(num_classes=10, image_size=32),
}
"""The data set that each stem was made for."""
