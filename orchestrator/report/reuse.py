"""How much each layer of a trained DenseNet reads of each earlier one: the paper's Figure 5, from its weights.

The mean absolute weight of what reads a source's maps, so that sources of many maps and of few compare. A block's first
source is its input; what reads its whole output, a transition or the classifier, is its last reader.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[Any]]

_LAYER: Final = re.compile(r"features\.denseblock(\d+)\.denselayer(\d+)\.conv1\.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReuse:
    """One dense block of n layers."""

    number: int
    """Counted from 1."""
    last_reader: str
    """Of the last column: "transition" or "classifier"."""
    strength: NDArray[np.float64]
    """[n + 1, n + 1]: row s is source s (0: the block's input), column t - 1 the reader t, the last one what follows
    the block. NaN where the source comes after the reader."""

    @property
    def num_layers(self) -> int:
        """Layers of the block."""
        return len(self.strength) - 1


def feature_reuse(weights: Weights) -> tuple[BlockReuse, ...]:
    """The blocks of a DenseNet by its parameters' names, which are timm's and torchvision's; () for other networks."""
    depths: dict[int, int] = {}
    for name in weights:
        if match := _LAYER.fullmatch(name):
            block, layer = int(match[1]), int(match[2])
            depths[block] = max(depths.get(block, 0), layer)
    last = max(depths, default=0)
    try:
        return tuple(_block(weights, block, depths[block], is_last=block == last) for block in sorted(depths))
    except (KeyError, IndexError):  # named like a DenseNet, but not made like one
        return ()


def _block(weights: Weights, number: int, num_layers: int, *, is_last: bool) -> BlockReuse:
    layers = [weights[f"features.denseblock{number}.denselayer{layer + 1}.conv1.weight"] for layer in range(num_layers)]
    follower = "classifier.weight" if is_last else f"features.transition{number}.conv.weight"
    readers = [*layers, weights[follower]]
    starts = [0, *(reader.shape[1] for reader in readers)]  # where the maps of each source begin, and where they end
    strength = np.full((num_layers + 1, num_layers + 1), np.nan)
    for column, reader in enumerate(readers):
        for source in range(column + 1):
            strength[source, column] = np.abs(_maps(reader, starts, source)).mean(dtype=np.float64)
    return BlockReuse(number=number, last_reader="classifier" if is_last else "transition", strength=strength)


def _maps(reader: NDArray[Any], starts: Sequence[int], source: int) -> NDArray[Any]:
    """The weights by which a reader reads one source. reader: [channels_out, channels_in, …]."""
    maps = reader[:, starts[source] : starts[source + 1]]
    if maps.shape[1] == 0:
        raise IndexError(source)
    return maps
