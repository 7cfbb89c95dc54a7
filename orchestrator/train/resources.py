"""What this process uses of its machine, looked up once a second by a thread, so that a step only picks it up."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import torch

INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """One look. None where this machine doesn't tell."""

    process_memory_bytes: int | None = None
    """Resident memory of this process."""
    host_memory_used_bytes: int | None = None
    host_memory_bytes: int | None = None
    gpu_memory_used_bytes: int | None = None
    """Of the whole GPU, other processes included."""
    gpu_memory_bytes: int | None = None
    gpu_utilization_percent: float | None = None


class ResourceSampler:
    """Keeps the newest look at hand until closed."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.latest = look(device)
        self._closing = Event()
        self._thread = Thread(target=self._run, name="resources", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(INTERVAL_S):
            self.latest = look(self._device)

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        self._thread.join()


def look(device: torch.device) -> Resources:
    """What is used now. Memory of processes and hosts is known on Linux alone."""
    process_memory_bytes = host_memory_used_bytes = host_memory_bytes = None
    with contextlib.suppress(OSError, KeyError, ValueError):
        status, memory = _kibibytes(Path("/proc/self/status")), _kibibytes(Path("/proc/meminfo"))
        process_memory_bytes = 1024 * status["VmRSS"]
        host_memory_bytes = 1024 * memory["MemTotal"]
        host_memory_used_bytes = host_memory_bytes - 1024 * memory["MemAvailable"]
    gpu_free_bytes, gpu_memory_bytes = torch.cuda.mem_get_info(device) if device.type == "cuda" else (None, None)
    return Resources(
        process_memory_bytes=process_memory_bytes,
        host_memory_used_bytes=host_memory_used_bytes,
        host_memory_bytes=host_memory_bytes,
        gpu_memory_used_bytes=gpu_memory_bytes - gpu_free_bytes if gpu_memory_bytes and gpu_free_bytes else None,
        gpu_memory_bytes=gpu_memory_bytes,
        gpu_utilization_percent=_gpu_utilization(device),
    )


def _kibibytes(path: Path) -> dict[str, int]:
    """The lines 'name: number kB' of one of the kernel's files."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}


def _gpu_utilization(device: torch.device) -> float | None:
    """Percent of the last moments in which a kernel ran; None where the driver doesn't say (a slice of a GPU)."""
    if device.type != "cuda":
        return None
    try:
        return float(torch.cuda.utilization(device))
    except (RuntimeError, OSError, ModuleNotFoundError):
        return None
