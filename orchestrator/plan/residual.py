"""The residual networks for 32 px images that the paper's Table 2 compares with, as shapes; free of torch.

Sources: ResNet-110, He et al., "Deep Residual Learning", CVPR 2016, section 4.2; pre-activation ResNets, He et al.,
"Identity Mappings in Deep Residual Networks", ECCV 2016; Wide ResNet, Zagoruyko and Komodakis, BMVC 2016. Where a
detail isn't in the paper, the authors' Torch code has it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

from orchestrator.errors import UsageError

Unit = Literal["basic", "preactivated", "bottleneck"]

BOTTLENECK_EXPANSION: Final = 4
"""Channels that leave a bottleneck unit, in multiples of its width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualUnit:
    """One unit of a network: two or three convolutions beside a shortcut."""

    in_channels: int
    out_channels: int
    stride: int
    """2 where the unit halves its maps, otherwise 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualArchitecture:
    """A 3x3 convolution, three stages of residual units at 32, 16 and 8 px, average pool, classifier.

    unit: "basic" is conv, norm, ReLU, conv, norm beside the shortcut and a ReLU behind the sum; the shortcut has no
        weights (it takes every second pixel and adds channels of zeros). "preactivated" is norm, ReLU, conv twice;
        "bottleneck" is norm, ReLU, conv three times, 1x1, 3x3, 1x1 at a quarter of the width. In both, a unit whose
        channels change has a 1x1 convolution as its shortcut, which reads what the first norm and ReLU leave.
    units_per_stage: units of each stage.
    num_init_features: channels of the first convolution.
    widths: channels that leave each stage.
    """

    unit: Unit
    units_per_stage: int
    num_init_features: int = 16
    widths: tuple[int, int, int]
    stem: Literal["cifar"] = "cifar"

    def __post_init__(self) -> None:
        faults = [message for fits, message in self._rules() if not fits]
        if faults:
            raise UsageError("There can be no such residual network: " + "; ".join(faults))

    def _rules(self) -> Iterator[tuple[bool, str]]:
        yield self.unit in get_args(Unit), f"unit is {self.unit!r}, must be one of {get_args(Unit)}"
        yield self.units_per_stage >= 1, f"units_per_stage is {self.units_per_stage}, must be at least 1"
        yield self.num_init_features >= 1, f"num_init_features is {self.num_init_features}, must be at least 1"
        least = BOTTLENECK_EXPANSION if self.unit == "bottleneck" else 1
        yield min(self.widths) >= least, f"widths are {self.widths}, must be at least {least} each"

    def stages(self) -> Iterator[tuple[ResidualUnit, ...]]:
        """The units of each stage, first to last."""
        in_channels = self.num_init_features
        for number, width in enumerate(self.widths):
            first = ResidualUnit(in_channels=in_channels, out_channels=width, stride=1 if number == 0 else 2)
            other = ResidualUnit(in_channels=width, out_channels=width, stride=1)
            yield (first, *[other] * (self.units_per_stage - 1))
            in_channels = width

    @property
    def num_units(self) -> int:
        """Units of all stages."""
        return len(self.widths) * self.units_per_stage
