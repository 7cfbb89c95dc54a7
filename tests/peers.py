"""Networks by other people that ours are held against."""

from typing import Any

import timm
import torch
from torch import nn


def timm_densenet_for_small_images(*, num_classes: int, seed: int | None = None, **shape: Any) -> nn.Module:
    """timm's DenseNet-BC behind a 3x3 convolution, as the CIFAR networks begin; the authors' spread of initial weights.

    shape: growth_rate and block_config; timm's first convolution has 2 growth_rate channels. seed: torch's own
    generator is seeded with it; None leaves it.
    """
    if seed is not None:
        torch.manual_seed(seed)
    model = timm.models.densenet.DenseNet(num_classes=num_classes, **shape)
    stem = nn.Conv2d(3, 2 * shape["growth_rate"], kernel_size=3, padding=1, bias=False)
    model.features.conv0, model.features.norm0, model.features.pool0 = stem, nn.Identity(), nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(model.classifier.bias)
    return model
