"""The residual networks that the paper compares with on CIFAR and SVHN: post-activation, pre-activation and wide."""

from typing import Any, Final

import torch.nn.functional as F
from torch import Tensor, nn

from orchestrator.models.dropout import SampleDropout, StochasticDepth, number_masks
from orchestrator.models.initial import Init, init_convolutions
from orchestrator.plan.residual import BOTTLENECK_EXPANSION, ResidualArchitecture, ResidualUnit


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def _conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


class BasicUnit(nn.Module):
    """Conv, norm, ReLU, conv, norm; the shortcut added; ReLU. The shortcut takes pixels away and adds zeros."""

    def __init__(self, shape: ResidualUnit, drop_rate: float, death_rate: float) -> None:
        super().__init__()
        self.conv1 = _conv3x3(shape.in_channels, shape.out_channels, shape.stride)
        self.norm1 = nn.BatchNorm2d(shape.out_channels)
        self.drop = SampleDropout(drop_rate)
        self.conv2 = _conv3x3(shape.out_channels, shape.out_channels)
        self.norm2 = nn.BatchNorm2d(shape.out_channels)
        self.depth = StochasticDepth(death_rate)
        self.stride = shape.stride
        self.num_new_channels = shape.out_channels - shape.in_channels

    def forward(self, maps: Tensor) -> Tensor:
        """maps: [n, in_channels, h, w]; [n, out_channels, h / stride, w / stride]."""
        branch = F.relu(self.norm1(self.conv1(maps)), inplace=True)
        branch = self.norm2(self.conv2(self.drop(branch)))
        shortcut = maps
        if self.stride > 1:
            shortcut = shortcut[:, :, :: self.stride, :: self.stride]
        if self.num_new_channels:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.num_new_channels))
        return F.relu(self.depth(branch) + shortcut, inplace=True)


class PreactivatedUnit(nn.Module):
    """Norm, ReLU, conv, twice; the shortcut added. Dropout before the second convolution, as in wide networks."""

    def __init__(self, shape: ResidualUnit, drop_rate: float, death_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(shape.in_channels)
        self.conv1 = _conv3x3(shape.in_channels, shape.out_channels, shape.stride)
        self.norm2 = nn.BatchNorm2d(shape.out_channels)
        self.drop = SampleDropout(drop_rate)
        self.conv2 = _conv3x3(shape.out_channels, shape.out_channels)
        self.depth = StochasticDepth(death_rate)
        self.shortcut = _projection(shape)

    def forward(self, maps: Tensor) -> Tensor:
        """maps: [n, in_channels, h, w]; [n, out_channels, h / stride, w / stride]."""
        activated = F.relu(self.norm1(maps), inplace=True)
        branch = F.relu(self.norm2(self.conv1(activated)), inplace=True)
        branch = self.conv2(self.drop(branch))
        shortcut = maps if self.shortcut is None else self.shortcut(activated)
        result: Tensor = self.depth(branch) + shortcut
        return result


class BottleneckUnit(nn.Module):
    """Norm, ReLU, conv, three times: 1x1 to a quarter of the channels, 3x3, 1x1; the shortcut added.

    The stride is the first convolution's. Dropout before the 3x3 convolution.
    """

    def __init__(self, shape: ResidualUnit, drop_rate: float, death_rate: float) -> None:
        super().__init__()
        width = shape.out_channels // BOTTLENECK_EXPANSION
        self.norm1 = nn.BatchNorm2d(shape.in_channels)
        self.conv1 = _conv1x1(shape.in_channels, width, shape.stride)
        self.norm2 = nn.BatchNorm2d(width)
        self.drop = SampleDropout(drop_rate)
        self.conv2 = _conv3x3(width, width)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = _conv1x1(width, shape.out_channels)
        self.depth = StochasticDepth(death_rate)
        self.shortcut = _projection(shape)

    def forward(self, maps: Tensor) -> Tensor:
        """maps: [n, in_channels, h, w]; [n, out_channels, h / stride, w / stride]."""
        activated = F.relu(self.norm1(maps), inplace=True)
        branch = F.relu(self.norm2(self.conv1(activated)), inplace=True)
        branch = F.relu(self.norm3(self.conv2(self.drop(branch))), inplace=True)
        branch = self.conv3(branch)
        shortcut = maps if self.shortcut is None else self.shortcut(activated)
        result: Tensor = self.depth(branch) + shortcut
        return result


def _projection(shape: ResidualUnit) -> nn.Conv2d | None:
    if shape.in_channels == shape.out_channels:
        return None
    return _conv1x1(shape.in_channels, shape.out_channels, shape.stride)


_UNITS: Final[dict[str, Any]] = {
    "basic": BasicUnit,
    "preactivated": PreactivatedUnit,
    "bottleneck": BottleneckUnit,
}


class ResidualNet(nn.Module):
    """A residual network for images [n, in_chans, h, w], meant for 32 px.

    drop_rate: dropout inside of each unit. stochastic_depth: probability of losing the last unit's branch; that of
    earlier ones falls linearly towards 0 at the image (Huang et al., ECCV 2016: 0.5).
    """

    def __init__(
        self,
        architecture: ResidualArchitecture,
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        stochastic_depth: float = 0.0,
        init: Init = "authors",
    ) -> None:
        super().__init__()
        is_postactivated = architecture.unit == "basic"
        self.conv0 = _conv3x3(in_chans, architecture.num_init_features)
        self.norm0 = nn.BatchNorm2d(architecture.num_init_features) if is_postactivated else None
        self.stages = nn.ModuleList()
        number = 0
        for units in architecture.stages():
            stage = nn.Sequential()
            for shape in units:
                number += 1
                death_rate = stochastic_depth * number / architecture.num_units
                stage.append(_UNITS[architecture.unit](shape, drop_rate, death_rate))
            self.stages.append(stage)
        self.num_features = architecture.widths[-1]
        self.last_norm = None if is_postactivated else nn.BatchNorm2d(self.num_features)
        self.num_classes = num_classes
        self.classifier = nn.Linear(self.num_features, num_classes)
        nn.init.zeros_(self.classifier.bias)
        number_masks(self)
        init_convolutions(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """images: [n, in_chans, h, w], normalised; logits [n, num_classes]."""
        maps = self.conv0(images)
        if self.norm0 is not None:
            maps = F.relu(self.norm0(maps), inplace=True)
        for stage in self.stages:
            maps = stage(maps)
        if self.last_norm is not None:
            maps = F.relu(self.last_norm(maps), inplace=True)
        logits: Tensor = self.classifier(maps.mean(dim=(2, 3)))
        return logits
