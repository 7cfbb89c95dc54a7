"""Runs as Ray jobs: submitting one, asking how it is, ending it at once.

Ray Jobs place the driver on the cluster and keep it when the client goes away. Nothing of a run's progress passes
through them: that is in the run directory.
"""

import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import orchestrator
from orchestrator.engine.clusters import Cluster
from orchestrator.engine.interface import interface_environment
from orchestrator.engine.jobreport import JobReport
from orchestrator.engine.slurm import SlurmJobs
from orchestrator.errors import ClusterError
from orchestrator.run.directory import RunDirectory


class Jobs(Protocol):
    """What takes the drivers of runs as jobs. All methods raise ClusterError."""

    def submit(self, run: RunDirectory, job_id: str) -> None:
        """Submit the driver of a run under a new id."""

    def report(self, job_id: str) -> JobReport:
        """How a job is; an error, too, if nobody has ever heard of it."""

    def log_tail(self, run: RunDirectory, job_id: str, num_lines: int = 12) -> str:
        """The last lines that a job's driver printed."""

    def end(self, job_id: str) -> None:
        """End a job at once."""


def connect(cluster: Cluster) -> Jobs:
    """The jobs of a cluster. Raises ClusterError if it doesn't answer or refuses."""
    if cluster.slurm_script is not None:
        return SlurmJobs(cluster.slurm_script, interface=cluster.interface)
    return RayJobs(cluster)


class RayJobs:
    """Talks to a cluster's job server. Importing Ray takes a second, so make one only when a cluster is needed."""

    def __init__(self, cluster: Cluster) -> None:
        """Connect. Raises ClusterError if the cluster doesn't answer, refuses, or has other versions than are here."""
        if not cluster.is_local:
            cluster.dashboard().refuse_other_versions()
        cluster.use_token()
        self._cluster = cluster
        with self._translated():
            from ray.job_submission import JobSubmissionClient  # costs a second: not for `--help`

            for logger in ("ray", "ray.dashboard.modules.dashboard_sdk"):  # INFO by Ray's will, whatever ours is
                logging.getLogger(logger).setLevel(logging.getLogger().level)
            self._client: Any = JobSubmissionClient(cluster.jobs_address)

    def submit(self, run: RunDirectory, job_id: str) -> None:
        """Submit the driver of a run as a job of that id, which must be new to the cluster."""
        self.start("orchestrator.engine.driver", [str(run.path)], job_id, metadata={"dnctl_run": run.name})

    def start(self, module: str, arguments: Sequence[str], job_id: str, *, metadata: dict[str, str]) -> None:
        """Run one of our modules as a job of that id, which must be new to the cluster."""
        with self._translated():
            self._client.submit_job(
                entrypoint=self._module(module, *arguments),
                submission_id=job_id,
                runtime_env=self._runtime_env(),
                metadata=metadata,
            )

    def _module(self, module: str, *arguments: str) -> str:
        python = sys.executable if self._cluster.is_local else "python"
        return shlex.join([python, "-m", module, *arguments])

    def _runtime_env(self) -> dict[str, Any]:
        """On this machine the nodes have this very code; elsewhere it is shipped with the job."""
        if self._cluster.is_local:
            return {}
        environment = interface_environment(self._cluster.interface) if self._cluster.interface else {}
        return {"py_modules": [str(Path(orchestrator.__file__).parent)], "env_vars": environment}

    def report(self, job_id: str) -> JobReport:
        """How a job is. Raises ClusterError, also if the cluster has never heard of it."""
        with self._translated():
            details = self._client.get_job_info(job_id)
        return JobReport(status=str(details.status.value), message=details.message or "")

    def log_tail(self, run: RunDirectory, job_id: str, num_lines: int = 12) -> str:
        """The last lines that a job's driver printed."""
        return "\n".join(self.log(job_id).rstrip().splitlines()[-num_lines:])

    def log(self, job_id: str) -> str:
        """All that a job's driver printed."""
        with self._translated():
            log: str = self._client.get_job_logs(job_id)
        return log

    def end(self, job_id: str) -> None:
        """End a job at once: SIGTERM, three seconds, SIGKILL."""
        with self._translated():
            self._client.stop_job(job_id)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, OSError, RuntimeError) as error:
            raise ClusterError(
                f"the cluster at {self._cluster.jobs_address} can't be used: {str(error).strip()}; check that it is "
                "up and that this is the address of its dashboard, or leave out --cluster and RAY_ADDRESS to use this "
                "machine"
            ) from error
