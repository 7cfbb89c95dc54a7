"""Runs as jobs of Slurm: each starts Ray over its own nodes, trains, and puts itself back into the queue.

A job carries our id as its name, so that it can be asked for before Slurm's own number is known, and after a requeue.
"""

import os
from pathlib import Path

from orchestrator.engine.interface import interface_environment
from orchestrator.engine.jobreport import JobReport
from orchestrator.engine.tools import ask_tool, find_tool
from orchestrator.errors import ClusterError
from orchestrator.run.directory import RunDirectory
from orchestrator.run.state import State
from orchestrator.run.stop import StopRequest, ask_first_to_stop

MARK = "dnctl"
"""The comment by which our jobs are told from a person's others."""
_NEEDED_FOR = "runs of this cluster are jobs of Slurm"
_PENDING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESIZING", "SUSPENDED"})


class SlurmJobs:
    """Talks to Slurm through its commands."""

    def __init__(self, script: Path, *, interface: str | None) -> None:
        """Raises ClusterError if Slurm's commands aren't there."""
        find_tool("sbatch", needed_for=_NEEDED_FOR)
        self._script = script
        self._interface = interface

    def submit(self, run: RunDirectory, job_id: str) -> None:
        """Put a run into the queue under that name."""
        environment = interface_environment(self._interface) if self._interface else {}
        ask_tool(
            [
                *(find_tool("sbatch", needed_for=_NEEDED_FOR), "--parsable", f"--job-name={job_id}"),
                *self._dependencies(run),
                *(f"--comment={MARK}", f"--output={_log(run)}", "--open-mode=append"),
                *(str(self._script), str(run.path)),
            ],
            environment={**os.environ, **environment},
        )

    def _dependencies(self, run: RunDirectory) -> list[str]:
        """That Slurm holds a run back until the jobs of those before it have ended: waiting takes no allocation."""
        numbers = []
        for name in run.read_state().after:
            before = RunDirectory(run.path.parent / name).read_state()
            if before.state is State.SUCCEEDED:
                continue
            number = self._number(before.job_id) if before.job_id else ""
            if not number:
                raise ClusterError(
                    f"--after {name}: on Slurm a run waits for another one's job, and {name} has none in this queue; "
                    "launch it here first, or leave out --after"
                )
            numbers.append(number)
        return [f"--dependency=afterany:{':'.join(numbers)}"] if numbers else []

    def _number(self, job_id: str) -> str:
        """Slurm's own number of a job that is in the queue, by its name."""
        squeue = find_tool("squeue", needed_for=_NEEDED_FOR)
        answer = ask_tool([squeue, "--me", "--noheader", f"--name={job_id}", "--format=%i"])
        return answer.split()[0] if answer.split() else ""

    def report(self, job_id: str) -> JobReport:
        """How the job of that name is. A job that left the queue is over; how it went is in the run directory."""
        answer = ask_tool(
            [
                *(find_tool("squeue", needed_for=_NEEDED_FOR), "--me", "--noheader", f"--name={job_id}"),
                *("--states=all", "--format=%T|%r"),
            ]
        )
        states = [line.partition("|")[::2] for line in answer.splitlines()]
        for state, reason in states:
            if state in _PENDING:
                return JobReport(status="PENDING", message=f"Slurm: {reason}")
            if state in ("RUNNING", "COMPLETING", "SIGNALING", "STOPPED", "STAGE_OUT"):
                return JobReport(status="RUNNING", message="")
        state, reason = states[-1] if states else ("", "")
        said = f"Slurm says {state}, {reason}" if state else "Slurm has it no more"
        return JobReport(status="FAILED", message=said)

    def log_tail(self, run: RunDirectory, job_id: str, num_lines: int = 12) -> str:
        """The last lines that the batch script of that run printed."""
        path = _log(run)
        return "\n".join(path.read_text(errors="replace").rstrip().splitlines()[-num_lines:]) if path.exists() else ""

    def end(self, job_id: str) -> None:
        """Cancel the job of that name: SIGTERM, then after a while SIGKILL."""
        ask_tool([find_tool("scancel", needed_for=_NEEDED_FOR), "--me", f"--name={job_id}", "--full"])


def _log(run: RunDirectory) -> Path:
    return run.path / "slurm.log"


def requeue_this_job() -> None:
    """Put the job that this process belongs to back into the queue; Slurm ends it at once. Raises ClusterError."""
    ask_tool([find_tool("scontrol", needed_for=_NEEDED_FOR), "requeue", os.environ["SLURM_JOB_ID"]])


def ask_for_requeue(run: RunDirectory) -> None:
    """Ask the run to stop with a checkpoint and to wait for its next turn; a person's own stop comes first."""
    ask_first_to_stop(run.stop_request, StopRequest(requeue=True))
