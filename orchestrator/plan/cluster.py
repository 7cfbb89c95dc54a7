"""What a cluster has, as far as a plan needs to know; found out without torch or Ray."""

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

from orchestrator.errors import PlanError

ASSUMED_CPUS_PER_GPU = 8
"""CPU cores beside each GPU of a cluster that is described by its GPUs alone."""

_QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
_MIB = 2**20
_CROWD = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShape:
    """What one machine of a cluster has."""

    num_cpus: int
    num_gpus: int = 0

    def room_for(self, *, cpus: int, gpus: int) -> int:
        """How many workers of so many cores and GPUs it holds; workers that take neither don't crowd."""
        rooms = [have // take for have, take in ((self.num_cpus, cpus), (self.num_gpus, gpus)) if take]
        return min(rooms, default=_CROWD)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterShape:
    """The most that a cluster ever has."""

    num_cpus: int
    num_gpus: int = 0
    nodes: int = 1
    gpu_type: str | None = None
    """As its maker calls it, such as 'NVIDIA H100 80GB HBM3', or part of that."""
    gpu_memory_bytes: int | None = None
    """Of one GPU."""
    address: str | None = None
    """None: this machine, or a cluster that is only imagined."""
    each: tuple[NodeShape, ...] = ()
    """What each node has or, where an autoscaler brings them, may have; (): taken for one large machine."""

    def room_for(self, *, cpus: int, gpus: int) -> int:
        """For how many workers of so many cores and GPUs there ever is room, each on one node."""
        nodes = self.each or (NodeShape(num_cpus=self.num_cpus, num_gpus=self.num_gpus),)
        return sum(node.room_for(cpus=cpus, gpus=gpus) for node in nodes)

    def __str__(self) -> str:
        gpus = f"{self.num_gpus} x {self.gpu_type or 'GPU'}" if self.num_gpus else "no GPU"
        nodes = "" if self.nodes == 1 else f", {self.nodes} nodes"
        return f"{self.num_cpus} CPU core{'' if self.num_cpus == 1 else 's'}, {gpus}{nodes}"


def local_shape() -> ClusterShape:
    """What this machine has and this process may use."""
    names, memory_bytes = _visible_gpus()
    return ClusterShape(
        num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        num_gpus=len(names),
        gpu_type=names[0] if names else None,
        gpu_memory_bytes=memory_bytes,
    )


def described_shape(gpus: str | None, cpus: int | None) -> ClusterShape:
    """The cluster that a person describes: gpus as '8' or 'H100:8', cpus as a number of cores. Raises PlanError."""
    if gpus is None:
        return ClusterShape(num_cpus=cpus or 1)
    match = re.fullmatch(r"(?:(?P<type>[^:]+):)?(?P<number>\d+)", gpus.strip())
    if match is None:
        raise PlanError(f"--gpus {gpus}: found no number of GPUs; allowed: a number or TYPE:NUMBER, such as H100:8")
    num_gpus = int(match["number"])
    num_cpus = cpus or ASSUMED_CPUS_PER_GPU * max(1, num_gpus)
    return ClusterShape(num_cpus=num_cpus, num_gpus=num_gpus, gpu_type=match["type"] if num_gpus else None)


def installed_loader() -> Literal["dali", "pytorch"]:
    """The faster loader that is installed here."""
    try:
        return "dali" if importlib.util.find_spec("nvidia.dali") else "pytorch"
    except ModuleNotFoundError:
        return "pytorch"


def _visible_gpus() -> tuple[tuple[str, ...], int | None]:
    """Names of the GPUs that CUDA would show, and the memory of the first."""
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        return (), None
    answer = subprocess.run([nvidia_smi, *_QUERY], capture_output=True, text=True, timeout=30, check=False)
    if answer.returncode != 0:  # a driver without a device
        return (), None
    gpus = [line.rsplit(",", 1) for line in answer.stdout.splitlines() if "," in line]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = gpus[: len([device for device in visible.split(",") if device.strip() not in ("", "-1")])]
    names = tuple(name.strip() for name, _ in gpus)
    memory_mib = gpus[0][1].strip() if gpus else ""
    return names, int(memory_mib) * _MIB if memory_mib.isdigit() else None
