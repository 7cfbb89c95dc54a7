"""Initial weights: He normal, with the fan that the authors' code takes, or timm's."""

from typing import Final, Literal

import torch
from torch import nn

Init = Literal["authors", "timm"]

_FAN_MODE: Final[dict[Init, Literal["fan_in", "fan_out"]]] = {"authors": "fan_out", "timm": "fan_in"}


@torch.no_grad()
def init_convolutions(model: nn.Module, init: Init) -> None:
    """Draw a model's convolutions; its norms stay at weight 1 and bias 0, as torch makes them.

    init: "authors" draws with standard deviation sqrt(2 / (k_w * k_h * channels_out)), "timm" with channels_in.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=_FAN_MODE[init], nonlinearity="relu")
