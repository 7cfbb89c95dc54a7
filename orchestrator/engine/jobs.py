"""Runs as Ray jobs: submitting one, asking how it is, ending it at once.

Ray Jobs place the driver on the cluster and keep it when the client goes away. Nothing of a run's progress passes
through them: that is in the run directory.
"""

import contextlib
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orchestrator
from orchestrator.engine.clusters import Cluster
from orchestrator.errors import ClusterError
from orchestrator.run.directory import RunDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What Ray says of a job."""

    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    message: str

    @property
    def is_over(self) -> bool:
        """Whether the job won't do anything more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class JobClient:
    """Talks to a cluster's job server. Importing Ray takes a second, so make one only when a cluster is needed."""

    def __init__(self, cluster: Cluster) -> None:
        """Connect. Raises ClusterError if the cluster doesn't answer or refuses."""
        cluster.use_token()
        self._cluster = cluster
        with self._translated():
            from ray.job_submission import JobSubmissionClient  # costs a second: not for `--help`

            self._client: Any = JobSubmissionClient(cluster.jobs_address)

    def submit(self, run: RunDirectory, job_id: str) -> None:
        """Submit the driver of a run as a job of that id, which must be new to the cluster."""
        python = sys.executable if self._cluster.is_local else "python"
        with self._translated():
            self._client.submit_job(
                entrypoint=shlex.join([python, "-m", "orchestrator.engine.driver", str(run.path)]),
                submission_id=job_id,
                runtime_env=self._runtime_env(),
                metadata={"dnctl_run": run.name},
            )

    def _runtime_env(self) -> dict[str, Any]:
        """On this machine the nodes have this very code; elsewhere it is shipped with the job."""
        return {} if self._cluster.is_local else {"py_modules": [str(Path(orchestrator.__file__).parent)]}

    def report(self, job_id: str) -> JobReport:
        """How a job is. Raises ClusterError, also if the cluster has never heard of it."""
        with self._translated():
            details = self._client.get_job_info(job_id)
        return JobReport(status=str(details.status.value), message=details.message or "")

    def log_tail(self, job_id: str, num_lines: int = 12) -> str:
        """The last lines that a job's driver printed."""
        with self._translated():
            log: str = self._client.get_job_logs(job_id)
        return "\n".join(log.rstrip().splitlines()[-num_lines:])

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
