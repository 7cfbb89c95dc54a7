"""What each worker of an attempt is doing: the figures of all ranks that rank 0 leaves in telemetry.json.

The file holds a list a column, one entry a rank, so that 512 ranks are some 50 kB. It is replaced as a whole.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from orchestrator.errors import StorageError
from orchestrator.run import documents, files

FORMAT_VERSION = 1

Phase = Literal["data", "compute", "communication"]
PHASES: tuple[Phase, ...] = ("data", "compute", "communication")


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler:
    """A worker that the others wait for, in one phase of the step."""

    rank: int
    host: str
    phase: Phase
    factor: float
    """Its time over the others' median."""
    seconds: float
    """Its time a step."""
    others_s: float
    """The others' median."""
    since_step: int

    @property
    def sentence(self) -> str:
        """Who is how slow at what, in a line."""
        return (
            f"worker {self.rank} on {self.host} is slow in {self.phase}: {self.seconds:.3g} s a step, "
            f"{min(self.factor, 999):.2g} times the others' {self.others_s:.2g} s"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """All workers as of one step: every tuple has an entry a rank, None where there is nothing to tell."""

    step: int
    at: float
    """When it was written, in seconds since 1970."""
    host: tuple[str, ...]
    process_id: tuple[int, ...]
    device: tuple[str, ...]
    data_s: tuple[float, ...]
    """Seconds a step waiting for images, smoothed over some steps; likewise the next two."""
    compute_s: tuple[float, ...]
    communication_s: tuple[float, ...]
    process_memory_bytes: tuple[int | None, ...]
    """Resident memory of the worker's process."""
    host_memory_used_bytes: tuple[int | None, ...]
    """Of the whole machine, other processes included."""
    host_memory_bytes: tuple[int | None, ...]
    gpu_memory_used_bytes: tuple[int | None, ...]
    """Of the whole GPU, other processes included."""
    gpu_memory_bytes: tuple[int | None, ...]
    gpu_utilization_percent: tuple[float | None, ...]
    stragglers: tuple[Straggler, ...] = ()


def write_workers(path: Path, workers: Workers) -> None:
    """Replace telemetry.json."""
    document = {"format_version": FORMAT_VERSION, **asdict(workers)}
    files.write_atomically(path, documents.seal(json.dumps(document, ensure_ascii=False).encode()) + b"\n")


def read_workers(path: Path) -> Workers | None:
    """The figures, or None where there are none or they are damaged: views must work whatever lies there."""
    try:
        workers = documents.record(Workers, files.read_json(path, format_version=FORMAT_VERSION))
    except (FileNotFoundError, StorageError, ValueError):
        return None
    return workers if _is_whole(workers) else None


def _is_whole(workers: Workers) -> bool:
    others = ("step", "at", "stragglers")
    columns = [getattr(workers, field.name) for field in fields(Workers) if field.name not in others]
    is_of_them = all(straggler.rank < len(workers.host) for straggler in workers.stragglers)
    return len({len(column) for column in columns}) == 1 and is_of_them
