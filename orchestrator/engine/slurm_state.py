"""What Slurm has for us: its nodes by partition, and our jobs with the reason why they wait."""

from dataclasses import dataclass

from orchestrator.engine.slurm import MARK
from orchestrator.engine.tools import ask_tool, find_tool

_NEEDED_FOR = "the state of this cluster is Slurm's to tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Nodes of one kind in one state."""

    name: str
    state: str
    num_nodes: int
    cpus_per_node: str
    gpus_per_node: str
    """Slurm's generic resources, such as 'gpu:h100:8'; '(null)' for none."""
    time_limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRun:
    """A run of ours in Slurm's queue."""

    job: str
    """Slurm's number."""
    name: str
    state: str
    reason: str
    """Why it waits, in Slurm's words, or on which nodes it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmState:
    """Slurm at a moment."""

    version: str
    partitions: tuple[Partition, ...]
    runs: tuple[QueuedRun, ...]


def read_slurm() -> SlurmState:
    """Ask Slurm. Raises ClusterError if it isn't here or doesn't answer."""
    sinfo = find_tool("sinfo", needed_for=_NEEDED_FOR)
    squeue = find_tool("squeue", needed_for=_NEEDED_FOR)
    nodes = ask_tool([sinfo, "--noheader", "--format=%P|%T|%D|%c|%G|%l"])
    jobs = ask_tool([squeue, "--me", "--noheader", "--format=%A|%j|%T|%R|%k"])
    return SlurmState(
        version=ask_tool([sinfo, "--version"]).strip().removeprefix("slurm-wlm ").removeprefix("slurm "),
        partitions=tuple(_partition(line) for line in nodes.splitlines()),
        runs=tuple(_run(line) for line in jobs.splitlines() if line.rpartition("|")[2] == MARK),
    )


def _partition(line: str) -> Partition:
    name, state, count, cpus, gpus, limit = line.split("|")
    return Partition(
        name=name.rstrip("*"),
        state=state,
        num_nodes=int(count),
        cpus_per_node=cpus,
        gpus_per_node=gpus,
        time_limit=limit,
    )


def _run(line: str) -> QueuedRun:
    job, name, state, reason, _ = line.split("|")
    return QueuedRun(job=job, name=name, state=state, reason=reason.strip("()"))
