"""The ranks that train together, and the few collectives that the loop needs beside DDP's own."""

from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This rank's place among the ranks, and its device."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def single(cls, device: str = "cpu") -> "World":
        """One process, no process group."""
        return cls(rank=0, size=1, device=torch.device(device))

    @property
    def device_type(self) -> Literal["cpu", "cuda"]:
        """The kind of device."""
        return "cuda" if self.device.type == "cuda" else "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value: T) -> T:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]
