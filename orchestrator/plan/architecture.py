"""What a DenseNet is made of, and the channel counts that follow from that; free of torch.

`models/` builds its modules from these shapes and `footprint.py` counts them, so what is counted is what is trained.
Source: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, section 3 and Table 1; DenseNet-161 from
the authors' code.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from orchestrator.errors import UsageError

Stem = Literal["imagenet", "cifar"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShape:
    """Channel counts of one dense block and of the transition behind it (None behind the last block)."""

    num_layers: int
    in_channels: int
    out_channels: int
    transition_channels: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseNetArchitecture:
    """What makes one DenseNet different from another; classes, input channels and dropout are the task's.

    growth_rate: k, the channels that each layer adds.
    block_config: layers of each dense block.
    num_init_features: channels of the first convolution.
    bn_size: width of a bottleneck in multiples of k; 0 means basic layers, a single 3x3 convolution each.
    compression: theta, the share of channels that a transition keeps, rounded down; 1 means all.
    stem: "imagenet" is a 7x7 convolution of stride 2, norm, ReLU and a 3x3 max pool of stride 2; "cifar" is a 3x3
        convolution.
    """

    growth_rate: int
    block_config: tuple[int, ...]
    num_init_features: int
    bn_size: int = 4
    compression: float = 0.5
    stem: Stem = "imagenet"

    def __post_init__(self) -> None:
        faults = [message for fits, message in self._rules() if not fits]
        if not faults and any(block.transition_channels == 0 for block in self.blocks()):
            faults.append(f"compression {self.compression} leaves a transition without channels")
        if faults:
            raise UsageError("There can be no such DenseNet: " + "; ".join(faults))

    def _rules(self) -> Iterator[tuple[bool, str]]:
        yield self.growth_rate >= 1, f"growth_rate is {self.growth_rate}, must be at least 1"
        yield (
            len(self.block_config) > 0 and min(self.block_config) >= 1,
            f"block_config is {self.block_config}, must hold one or more blocks of at least one layer each",
        )
        yield self.num_init_features >= 1, f"num_init_features is {self.num_init_features}, must be at least 1"
        yield self.bn_size >= 0, f"bn_size is {self.bn_size}, must be 0 (basic layers) or more"
        yield 0 < self.compression <= 1, f"compression is {self.compression}, must be above 0 and at most 1"
        yield self.stem in get_args(Stem), f"stem is {self.stem!r}, must be one of {get_args(Stem)}"

    def blocks(self) -> Iterator[BlockShape]:
        """The dense blocks from first to last."""
        in_channels = self.num_init_features
        for number, num_layers in enumerate(self.block_config, start=1):
            out_channels = in_channels + num_layers * self.growth_rate
            is_last = number == len(self.block_config)
            kept_channels = None if is_last else math.floor(out_channels * self.compression)
            yield BlockShape(
                num_layers=num_layers,
                in_channels=in_channels,
                out_channels=out_channels,
                transition_channels=kept_channels,
            )
            if kept_channels is not None:
                in_channels = kept_channels

    @property
    def num_features(self) -> int:
        """Channels that the classifier reads."""
        *_, last = self.blocks()
        return last.out_channels


def _imagenet_bc(growth_rate: int, *block_config: int) -> DenseNetArchitecture:
    return DenseNetArchitecture(
        growth_rate=growth_rate, block_config=block_config, num_init_features=2 * growth_rate, stem="imagenet"
    )


DENSENETS: Mapping[str, DenseNetArchitecture] = {
    "densenet121": _imagenet_bc(32, 6, 12, 24, 16),
    "densenet169": _imagenet_bc(32, 6, 12, 32, 32),
    "densenet201": _imagenet_bc(32, 6, 12, 48, 32),
    "densenet264": _imagenet_bc(32, 6, 12, 64, 48),
    "densenet161": _imagenet_bc(48, 6, 12, 36, 24),
    # For `make demo`: most layers work on the small maps, so that an epoch of 1437 digits takes about 5 s on one core.
    "densenet_demo": DenseNetArchitecture(growth_rate=12, block_config=(1, 3, 8), num_init_features=24, stem="cifar"),
}
"""Those that are no family's: each is a name of its own, with blocks of its own."""
