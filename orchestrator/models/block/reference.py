"""The dense block as the paper writes it: every layer reads the concatenation of all maps before it."""

from typing import cast

import torch
from torch import Tensor, nn

from orchestrator.models.dropout import SampleDropout
from orchestrator.models.preactivation import preactivated_conv


class BasicLayer(nn.Module):
    """Norm, ReLU, 3x3 convolution; then dropout."""

    def __init__(self, in_channels: int, growth_rate: int, drop_rate: float, memory_efficient: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, growth_rate, kernel_size=3, padding=1, bias=False)
        self.drop1 = SampleDropout(drop_rate)
        self.memory_efficient = memory_efficient

    def forward(self, *maps: Tensor) -> Tensor:
        """maps: [n, c_i, h, w] each; [n, growth_rate, h, w]."""
        added = preactivated_conv(self.norm1, self.conv1, *maps, recompute=self.memory_efficient)
        result: Tensor = self.drop1(added)
        return result


class BottleneckLayer(nn.Module):
    """Norm, ReLU, 1x1 convolution to `width` channels; norm, ReLU, 3x3 convolution; dropout after each."""

    def __init__(
        self, in_channels: int, growth_rate: int, width: int, drop_rate: float, memory_efficient: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.drop1 = SampleDropout(drop_rate)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, growth_rate, kernel_size=3, padding=1, bias=False)
        self.drop2 = SampleDropout(drop_rate)
        self.memory_efficient = memory_efficient

    def forward(self, *maps: Tensor) -> Tensor:
        """maps: [n, c_i, h, w] each; [n, growth_rate, h, w]."""
        bottleneck = preactivated_conv(self.norm1, self.conv1, *maps, recompute=self.memory_efficient)
        bottleneck = self.drop1(bottleneck)
        added = preactivated_conv(self.norm2, self.conv2, bottleneck, recompute=self.memory_efficient)
        result: Tensor = self.drop2(added)
        return result


class DenseBlock(nn.ModuleDict):
    """Layers that each read the block's input and all earlier layers' maps.

    bn_size: width of a bottleneck in multiples of growth_rate; 0 means basic layers.
    memory_efficient: recompute concatenations, norms and ReLUs in the backward pass.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_layers: int,
        growth_rate: int,
        bn_size: int,
        drop_rate: float,
        memory_efficient: bool,
    ) -> None:
        super().__init__()
        for number in range(num_layers):
            layer_channels = in_channels + number * growth_rate
            self[f"denselayer{number + 1}"] = (
                BottleneckLayer(layer_channels, growth_rate, bn_size * growth_rate, drop_rate, memory_efficient)
                if bn_size
                else BasicLayer(layer_channels, growth_rate, drop_rate, memory_efficient)
            )

    @property
    def layers(self) -> "list[BasicLayer | BottleneckLayer]":
        """From the first to the last."""
        return [cast(BasicLayer | BottleneckLayer, layer) for layer in self.values()]

    def forward(self, features: Tensor) -> Tensor:
        """features: [n, in_channels, h, w]; [n, in_channels + num_layers * growth_rate, h, w]."""
        maps = [features]
        for layer in self.layers:
            maps.append(layer(*maps))
        return torch.cat(maps, dim=1)
