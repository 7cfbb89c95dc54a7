"""Handing a run to a cluster, and ending its job at once. Talks to people on stderr only."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING

from orchestrator.cli.output import stderr
from orchestrator.errors import ClusterError, RunStoppedError
from orchestrator.run.after import in_words
from orchestrator.run.directory import RunDirectory
from orchestrator.run.lease import living_holder
from orchestrator.run.state import State, write_state
from orchestrator.run.status import RunStatus
from orchestrator.run.stop import ask_first_to_stop, ask_to_stop, read_stop_request

SUBMISSION_S = 60.0
"""So long whoever submits a run may take to start a cluster and hand the run to it."""

if TYPE_CHECKING:
    from orchestrator.engine.clusters import Cluster
    from orchestrator.engine.jobs import Jobs
    from orchestrator.plan.plan import Plan
    from orchestrator.recipe.schema import Recipe


def submit(
    run: RunDirectory,
    recipe: "Recipe",
    plan: "Plan | None",
    target: "Cluster | None",
    *,
    after: Sequence[RunDirectory] = (),
) -> None:
    """Write recipe and plan, and submit the run's driver as a job. The run is PENDING until the driver takes it.

    plan: None if this machine can't see the data; the driver makes it then.
    target: None for this machine's own cluster, which is started if need be.
    after: runs that the driver waits for.
    """
    from orchestrator.engine.jobs import connect
    from orchestrator.engine.planning import write_plan, write_recipe

    write_recipe(run, recipe)
    if plan is not None:
        write_plan(run, plan)
    names = tuple(other.name for other in after)
    pending = replace(
        run.read_state(),
        state=State.PENDING,
        reason=in_words(names) if names else "submitted",
        updated_at=time(),
        finished_at=None,
        exit_code=None,
        job_id=f"{run.name}-{secrets.token_hex(3)}",
        cluster_address=None if target is None else target.name,
        after=names,
    )
    # Before the job: from its first moment on, the driver alone writes the state.
    write_state(run.state, pending)
    try:
        cluster = target or _local_cluster()
        assert pending.job_id is not None
        connect(cluster).submit(run, pending.job_id)
    except ClusterError as error:
        failed = replace(
            pending, state=State.FAILED, reason=str(error), finished_at=time(), exit_code=ClusterError.exit_code
        )
        write_state(run.state, failed)
        raise


def _local_cluster() -> "Cluster":
    from orchestrator.engine import clusters, local_cluster

    running = clusters.running_local_cluster()
    if running is not None:
        return running
    with stderr().status("starting a Ray cluster on this machine"):
        cluster = clusters.started_local_cluster()
    minutes = local_cluster.idle_minutes()
    stderr().print(
        f"Started a Ray cluster on this machine: on loopback, behind a token. It ends {minutes:g} minutes after its "
        "last run, or now with `dnctl cluster down`."
    )
    return cluster


def job_of(status: RunStatus) -> "tuple[Cluster, str] | None":
    """The cluster and the id of a run's job; None if there is none, or if its cluster is gone."""
    from orchestrator.engine.clusters import named_cluster, running_local_cluster

    record = status.record
    if record.job_id is None:
        return None
    cluster = named_cluster(record.cluster_address) if record.cluster_address else running_local_cluster()
    return (cluster, record.job_id) if cluster is not None else None


def end_at_once(status: RunStatus) -> None:
    """End a run's job without a checkpoint; a run that nobody drives becomes STOPPED by this."""
    from orchestrator.engine.jobs import connect

    job = job_of(status)
    if job is not None:
        cluster, job_id = job
        client = connect(cluster)
        if not client.report(job_id).is_over:
            _end(client, status.run, job_id)
            if status.state is not State.PENDING:  # its driver says so itself
                return
    elif (holder := living_holder(status.run.lease)) is not None:
        raise ClusterError(
            f"{status.run.name} is driven by process {holder.process_id} on {holder.host}, whose cluster isn't reached "
            "from here; stop it there, or without --now"
        )
    record = status.run.read_state()
    if not record.state.is_finished:
        ended = replace(
            record,
            state=State.STOPPED,
            reason="stopped at once",
            finished_at=time(),
            exit_code=RunStoppedError.exit_code,
        )
        write_state(status.run.state, ended)


def _end(client: "Jobs", run: RunDirectory, job_id: str) -> None:
    """End a job; its driver learns from the request who did it. What was asked for before is put back if that fails."""
    before = read_stop_request(run.stop_request)
    ask_to_stop(run.stop_request, now=True)
    try:
        client.end(job_id)
    except BaseException:
        run.stop_request.unlink(missing_ok=True)
        if before is not None:
            ask_first_to_stop(run.stop_request, before)
        raise


def fault_of_pending(status: RunStatus) -> str | None:
    """Why a run that waits to be taken up by a driver never will; None while there is hope, or a living driver."""
    fault = _fault_of_submission(status)
    return None if fault is None or living_holder(status.run.lease) is not None else fault


def _fault_of_submission(status: RunStatus) -> str | None:
    from orchestrator.engine.jobs import connect

    # For a moment after it was submitted its cluster may be starting, and not know of it yet.
    is_new = status.at - status.record.updated_at < SUBMISSION_S
    job = job_of(status)
    if job is None:
        return None if is_new else "its cluster is gone"
    cluster, job_id = job
    try:
        client = connect(cluster)
        report = client.report(job_id)
        if not report.is_over:
            return None
        return f"its job ended before it began ({report.message}):\n{client.log_tail(status.run, job_id)}"
    except ClusterError as error:
        return None if is_new else str(error)
