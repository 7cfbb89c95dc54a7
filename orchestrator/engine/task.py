"""What a driver tells its workers. Light to import: Ray's controller unpickles it, too, and needs no torch for that."""

from dataclasses import dataclass
from typing import Literal

from orchestrator.plan.plan import Plan
from orchestrator.run.directory import RunDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTask:
    """A run to be trained, the same for every rank."""

    run: RunDirectory
    plan: Plan
    holder: str
    """The driver's name, under which workers that are started again claim the next attempt."""
    data_root: str
    damaged: Literal["refuse", "skip"]
