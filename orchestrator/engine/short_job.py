"""A job that answers with one document: submitted by a command that waits for it, ended if that command is."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from secrets import token_hex
from time import monotonic, sleep
from typing import Any

from orchestrator import errors
from orchestrator.engine.clusters import Cluster
from orchestrator.engine.own_error import own_error
from orchestrator.errors import ClusterError

MARK = "dnctl-answer: "
"""Begins the line of the job's log that holds the answer."""
POLL_INTERVAL_S = 0.5
NUM_LINES = 8
"""Of the log of a job that failed, for the message."""


def answer_of(
    cluster: Cluster,
    module: str,
    arguments: Sequence[str],
    *,
    what: str,
    timeout_s: float = float("inf"),
) -> dict[str, Any]:
    """Run a module as a job on a Ray cluster, and return what it answered. Raises ClusterError.

    what: the job in words, for messages.
    """
    from orchestrator.engine.jobs import RayJobs

    client, job_id = RayJobs(cluster), f"{module.rpartition('.')[2].replace('_', '-')}-{token_hex(4)}"
    client.start(module, arguments, job_id, metadata={})
    deadline = monotonic() + timeout_s
    is_over = False
    try:
        while not (report := client.report(job_id)).is_over:
            if monotonic() > deadline:
                raise ClusterError(
                    f"{what} on {cluster.name} took longer than {timeout_s:.0f} s: its nodes may all be busy "
                    "(`dnctl cluster status` says), or can't reach one another; the job printed:\n"
                    f"{_tail(client.log(job_id))}"
                )
            sleep(POLL_INTERVAL_S)
        is_over = True
    finally:
        if not is_over:
            client.end(job_id)
    log = client.log(job_id)
    answers = [line.removeprefix(MARK) for line in log.splitlines() if line.startswith(MARK)]
    if not answers:
        raise ClusterError(f"{what} on {cluster.name} ended without a result ({report.message}):\n{_tail(log)}")
    answer: dict[str, Any] = json.loads(answers[-1])
    if "fault" in answer:
        raise getattr(errors, answer["kind"])(answer["fault"])
    return answer


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """In the job: an error that it or a worker of it raises on purpose is the answer, and is raised where one waits."""
    try:
        yield
    except Exception as error:  # Ray's, too, which not every job has imported; what isn't ours goes on its way
        own = own_error(error)
        if own is None:
            raise
        write_answer({"fault": str(own), "kind": type(own).__name__})


def write_answer(answer: Mapping[str, Any]) -> None:
    """In the job: answer whoever waits for it."""
    sys.stdout.write(f"{MARK}{json.dumps(answer)}\n")


def _tail(log: str) -> str:
    return "\n".join(log.rstrip().splitlines()[-NUM_LINES:])
