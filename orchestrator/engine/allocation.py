"""A run's driver in a job of Slurm, `python -m orchestrator.engine.allocation RUN_DIRECTORY` in its batch script.

SIGUSR1, which the script forwards when the job's time is nearly up, makes the run stop with a checkpoint; the job then
goes back into the queue, and goes on with the same run when Slurm starts it again.
"""

import os
import signal
import sys
from functools import partial
from pathlib import Path

from orchestrator.engine.driver import drive, log_to_stderr
from orchestrator.engine.slurm import ask_for_requeue, requeue_this_job
from orchestrator.engine.trainer import fit_with_ray
from orchestrator.run.directory import RunDirectory
from orchestrator.run.state import State


def main() -> int:
    """Drive the run that the command line names on the Ray cluster of this allocation."""
    log_to_stderr()
    run = RunDirectory(Path(sys.argv[1]))
    signal.signal(signal.SIGUSR1, lambda *_: ask_for_requeue(run))
    fit = partial(fit_with_ray, num_nodes=int(os.environ["SLURM_JOB_NUM_NODES"]))
    code = drive(run, fit, may_wait=False)  # Slurm has waited: see SlurmJobs.submit
    if run.read_state().state is State.PENDING:
        requeue_this_job()
    return code


if __name__ == "__main__":
    sys.exit(main())
