"""Rates at which networks have been measured to train: a table with sources, and what a probe adds to it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from orchestrator.plan.plan import Block, Numerics, Placement, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRate:
    """How fast one device trains a network, communication and loading left out."""

    device: str
    """'cpu', or a part of the GPU's name as its maker gives it, such as 'RTX 3090'."""
    num_cores: int | None
    """CPU cores that it was measured on; None for a GPU."""
    model: str
    image_size: int
    precisions: tuple[Precision, ...]
    """Those that the rate stands for."""
    channels_last: bool
    images_per_s: float
    source: str
    """Who measured it and how, in words."""
    block: Block | None = None
    """What computed the blocks; None: the rate stands for any."""


def published_rates() -> tuple[MeasuredRate, ...]:
    """The table rates.json."""
    rows: list[dict[str, Any]] = json.loads(files(__package__).joinpath("rates.json").read_text(encoding="utf-8"))
    return tuple(MeasuredRate(**{**row, "precisions": tuple(row["precisions"])}) for row in rows)


def find_rate(numerics: Numerics, placement: Placement, gpu_type: str | None) -> MeasuredRate | None:
    """The published rate of just this computation on this kind of device, if there is one."""
    return next((rate for rate in published_rates() if _stands_for(rate, numerics, placement, gpu_type)), None)


def known_devices(numerics: Numerics) -> Iterator[str]:
    """The kinds of device that the network's rate is known on, in whatever precision."""
    for rate in published_rates():
        if (rate.model, rate.image_size) == (numerics.model.name, numerics.train_transform.image_size):
            device = "a CPU" if rate.device == "cpu" else rate.device
            settings = "/".join(rate.precisions) + (", channels_last" if rate.channels_last else "")
            yield f"{device} ({settings})"


def _stands_for(rate: MeasuredRate, numerics: Numerics, placement: Placement, gpu_type: str | None) -> bool:
    device = "cpu" if placement.device == "cpu" else gpu_type or ""
    return (
        rate.device.lower() in device.lower()
        and rate.model == numerics.model.name
        and rate.image_size == numerics.train_transform.image_size
        and numerics.precision in rate.precisions
        and rate.channels_last == numerics.channels_last
        and rate.block in (None, numerics.model.block)
    )
