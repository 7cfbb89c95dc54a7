"""What every rank is doing, known to the first one without a message of its own.

A step makes one small all-reduce in any case. Each rank adds its figures of the step before to it, in slots that are
zero on all others, so that the sum holds everyone's. Hosts and devices are exchanged once, at the start.
"""

import json
import os
import socket
from dataclasses import asdict, dataclass
from time import perf_counter, time
from typing import Any

import numpy as np

from orchestrator.plan.plan import Plan
from orchestrator.run.workers import Workers
from orchestrator.train.reporter import Reporter
from orchestrator.train.resources import ResourceSampler
from orchestrator.train.stragglers import StepTimes, StragglerWatch
from orchestrator.train.world import World

NUM_SLOTS = 7
"""A rank's: seconds of data, compute and communication; bytes used of process, host and GPU; the GPU's utilisation."""
UNKNOWN = -1.0
WRITE_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identity:
    """What doesn't change of a rank."""

    host: str
    process_id: int
    device: str
    host_memory_bytes: int | None
    gpu_memory_bytes: int | None


class Telemetry:
    """Collects this rank's figures, and on the first rank those of all."""

    def __init__(self, plan: Plan, world: World, reporter: Reporter) -> None:
        self._world = world
        self._reporter = reporter
        self._sampler = ResourceSampler(world.device)
        self._step_times = (0.0, 0.0, 0.0)
        self._identities = self._exchange_identities()
        hosts = [identity.host for identity in self._identities]
        self._watch = StragglerWatch(hosts, images_per_rank=plan.placement.images_per_rank)
        self._written_at = -WRITE_INTERVAL_S

    def _exchange_identities(self) -> list[_Identity]:
        resources = self._sampler.latest
        mine = _Identity(
            host=socket.gethostname(),
            process_id=os.getpid(),
            device=str(self._world.device),
            host_memory_bytes=resources.host_memory_bytes,
            gpu_memory_bytes=resources.gpu_memory_bytes,
        )
        return [_Identity(**json.loads(text)) for text in self._world.gather_text(json.dumps(asdict(mine)))]

    def add_step(self, *, step_s: float, data_s: float, communication_s: float) -> None:
        """Take the times of this rank's last step."""
        self._step_times = (data_s, max(step_s - data_s - communication_s, 0.0), communication_s)

    def slots(self) -> list[float]:
        """This rank's figures among zeros: what the all-reduce of the next step sums over ranks."""
        resources = self._sampler.latest
        mine = [
            *self._step_times,
            _known(resources.process_memory_bytes),
            _known(resources.host_memory_used_bytes),
            _known(resources.gpu_memory_used_bytes),
            _known(resources.gpu_utilization_percent),
        ]
        slots = [0.0] * (NUM_SLOTS * self._world.size)
        slots[NUM_SLOTS * self._world.rank : NUM_SLOTS * (self._world.rank + 1)] = mine
        return slots

    def take(self, step: int, sums: list[float]) -> None:
        """On the first rank: take everyone's figures as a step has brought them, and tell the reporter."""
        if not self._world.is_first:
            return
        figures = np.asarray(sums).reshape(self._world.size, NUM_SLOTS)
        times = StepTimes(data_s=figures[:, 0], compute_s=figures[:, 1], communication_s=figures[:, 2])
        for name, straggler in self._watch.add(step, times):
            self._reporter.event(name, step=step, **(asdict(straggler) if straggler is not None else {}))
        if perf_counter() - self._written_at >= WRITE_INTERVAL_S:
            self._written_at = perf_counter()
            self._reporter.workers(self._workers(step, figures))

    def _workers(self, step: int, figures: np.ndarray) -> Workers:
        medians = self._watch.medians()
        columns: dict[str, Any] = {
            name: tuple(_rounded(value) for value in getattr(medians, name).tolist())
            for name in ("data_s", "compute_s", "communication_s")
        }
        identities = self._identities
        return Workers(
            step=step,
            at=time(),
            host=tuple(identity.host for identity in identities),
            process_id=tuple(identity.process_id for identity in identities),
            device=tuple(identity.device for identity in identities),
            process_memory_bytes=_bytes(figures[:, 3]),
            host_memory_used_bytes=_bytes(figures[:, 4]),
            host_memory_bytes=tuple(identity.host_memory_bytes for identity in identities),
            gpu_memory_used_bytes=_bytes(figures[:, 5]),
            gpu_memory_bytes=tuple(identity.gpu_memory_bytes for identity in identities),
            gpu_utilization_percent=tuple(None if value < 0 else value for value in figures[:, 6].tolist()),
            stragglers=self._watch.stragglers,
            **columns,
        )

    def close(self) -> None:
        """Let the thread end."""
        self._sampler.close()


def _known(value: float | None) -> float:
    return UNKNOWN if value is None else float(value)


def _bytes(column: np.ndarray) -> tuple[int | None, ...]:
    return tuple(None if value < 0 else round(value) for value in column.tolist())


def _rounded(seconds: float) -> float:
    """To microseconds: a file for 512 ranks stays small."""
    return round(seconds, 6)
