"""What the nodes of a run must have in common, looked at before it begins: storage, clocks, a network for sums.

Every rank takes part, over the process group that training would use: NCCL between GPUs, gloo between CPUs.
"""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from time import monotonic, perf_counter, sleep, time

import torch

from orchestrator.engine.interface import INTERFACE_VARIABLES
from orchestrator.train.world import World

SUM_BYTES = 4 << 20
NUM_SUMS = 3
STORAGE_WAIT_S = 20.0
"""NFS shows a file to others after seconds."""
MAX_FAULT_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCheck:
    """What one rank found."""

    host: str
    device: str
    interface: str | None
    """Named for gloo and NCCL; None: they choose."""
    gpus: int
    """That NVIDIA's driver shows on its node."""
    clock_ahead_s: float
    """Of the first rank's clock."""
    storage_fault: str
    """Why it doesn't see what the first rank wrote, or the first rank not its own; empty if all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCheck:
    """What all ranks found, the same on each."""

    backend: str
    sum_bytes: int
    sum_s: float
    """Of an all-reduce over all ranks, the fastest of some, on the rank on which it took longest."""
    sum_is_right: bool
    ranks: tuple[RankCheck, ...]

    @property
    def clock_difference_s(self) -> float:
        """Between the clock that is furthest ahead and the one furthest behind."""
        ahead = [rank.clock_ahead_s for rank in self.ranks]
        return max(ahead) - min(ahead)

    def faults(self, folder: Path) -> Iterator[str]:
        """Why no run can begin."""
        without = [(number, rank) for number, rank in enumerate(self.ranks) if rank.storage_fault]
        if without:
            who = "; ".join(f"worker {number} on {rank.host}: {rank.storage_fault}" for number, rank in without[:4])
            yield (
                f"the nodes don't share {folder} ({who}); mount the same storage there on every node, or set "
                "DNCTL_STORAGE to a folder that is shared"
            )
        if not self.sum_is_right:
            yield f"a sum over the workers by {self.backend} came out wrong: the network or a device is faulty"

    def to_json(self) -> dict[str, object]:
        """As JSON has it."""
        return {**asdict(self), "clock_difference_s": self.clock_difference_s}


def check_group(world: World, folder: Path) -> GroupCheck:
    """Look at everything. folder: on the storage in question; made and removed here. Every rank must call it."""
    storage_faults = _check_storage(world, folder)
    sum_s, is_right = _time_sum(world)
    world.gather_text("")  # all ranks leave it at the same moment, to milliseconds
    now = time()
    mine = {
        "host": socket.gethostname()[:64],
        "device": str(world.device),
        "interface": next((os.environ[name] for name in INTERFACE_VARIABLES if os.environ.get(name)), None),
        "gpus": _num_gpus(),
    }
    clocks = [float(text) for text in world.gather_text(repr(now))]
    others = [json.loads(text) for text in world.gather_text(json.dumps(mine))]
    sums = [json.loads(text) for text in world.gather_text(json.dumps([sum_s, is_right]))]
    return GroupCheck(
        backend="none" if world.size == 1 else "nccl" if world.device_type == "cuda" else "gloo",
        sum_bytes=SUM_BYTES,
        sum_s=max(seconds for seconds, _ in sums),
        sum_is_right=all(right for _, right in sums),
        ranks=tuple(
            RankCheck(**other, clock_ahead_s=clock - clocks[0], storage_fault=fault)
            for other, clock, fault in zip(others, clocks, storage_faults, strict=True)
        ),
    )


def _check_storage(world: World, folder: Path) -> Sequence[str]:
    """By rank: why it and the first one don't see each other's files; empty where they do."""
    token = world.broadcast(token_hex(8) if world.is_first else None)
    assert token is not None
    fault = _write(folder / "first", token) if world.is_first else ""
    world.gather_text("")  # it has been written
    if not world.is_first:
        fault = _read(folder / "first", token) or _write(folder / str(world.rank), token)
    faults = world.gather_text(fault)
    if world.is_first:
        faults = [
            fault if fault or rank == 0 else _read(folder / str(rank), token) for rank, fault in enumerate(faults)
        ]
        shutil.rmtree(folder, ignore_errors=True)
    return world.broadcast(faults)


def _write(path: Path, token: str) -> str:
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(token)
    except OSError as error:
        return f"can't write: {error.strerror}"[:MAX_FAULT_LENGTH]
    return ""


def _read(path: Path, token: str) -> str:
    deadline = monotonic() + STORAGE_WAIT_S
    while True:
        try:
            if path.read_text() == token:
                return ""
            fault = "another file is there"
        except FileNotFoundError:
            fault = "what the others write there isn't to be seen"
        except OSError as error:
            fault = f"can't read: {error.strerror}"
        if monotonic() > deadline:
            return fault[:MAX_FAULT_LENGTH]
        sleep(0.2)


def _time_sum(world: World) -> tuple[float, bool]:
    """Seconds of a sum over all ranks, and whether it was the right one."""
    fastest_s, is_right = float("inf"), True
    for _ in range(NUM_SUMS):
        ones = torch.full((SUM_BYTES // 4,), float(world.rank + 1), device=world.device)
        began_at = perf_counter()
        total = world.all_reduce_sum(ones)
        is_right &= bool((total == world.size * (world.size + 1) / 2).all())
        fastest_s = min(fastest_s, perf_counter() - began_at)
    return fastest_s, is_right


def _num_gpus() -> int:
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        return 0
    try:
        answer = subprocess.run([nvidia_smi, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return len([line for line in answer.stdout.splitlines() if line.startswith("GPU ")])
