"""The ranks that train together, and the few collectives that the loop needs beside DDP's own."""

from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

MAX_TEXT_BYTES = 512


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

    def gather_text(self, text: str) -> list[str]:
        """Every rank's text, on every rank. At most MAX_TEXT_BYTES, without zeros."""
        encoded = text.encode()
        assert len(encoded) <= MAX_TEXT_BYTES
        rows = torch.zeros((self.size, MAX_TEXT_BYTES), dtype=torch.int64, device=self.device)
        rows[self.rank, : len(encoded)] = torch.tensor(list(encoded), dtype=torch.int64, device=self.device)
        gathered = self.all_reduce_sum(rows).to(dtype=torch.uint8, device="cpu").numpy()
        return [row.tobytes().rstrip(b"\0").decode() for row in gathered]

    def broadcast(self, value: T) -> T:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]
