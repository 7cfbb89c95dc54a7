"""`dnctl list`, `status` and `stop`: what a run directory says, and asking a run to end."""

from time import time
from typing import Annotated, Any

import typer

from orchestrator.cli.output import JsonOption, console, print_json
from orchestrator.errors import StorageError, UsageError
from orchestrator.run.catalogue import find_run, storage_root
from orchestrator.run.catalogue import list_runs as all_runs
from orchestrator.run.directory import RunDirectory
from orchestrator.run.state import State
from orchestrator.run.status import RunStatus, read_status
from orchestrator.run.stop import ask_to_stop

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, a unique prefix of one, or 'last'.")]


def list_runs(json_output: JsonOption = False) -> None:
    """All runs, oldest first."""
    root = storage_root()
    statuses, damaged = [], []
    for run in all_runs(root):
        try:
            statuses.append(read_status(run, now=time()))
        except StorageError as error:
            damaged.append(str(error))
    if json_output:
        print_json([_document(status) for status in statuses])
    elif not statuses:
        console().print(f"No runs in {root} yet. `dnctl launch RECIPE` starts one.", markup=False, soft_wrap=True)
    else:
        from orchestrator.cli.render_status import render_list

        console().print(render_list(statuses), soft_wrap=True)
    if damaged:
        raise StorageError("\n".join(damaged))


def status(run: RunArgument, json_output: JsonOption = False) -> None:
    """How one run is: state and why, how far, how good, what next."""
    current = read_status(find_run(storage_root(), run), now=time())
    if json_output:
        print_json(_document(current))
    else:
        from orchestrator.cli.render_status import render_status

        console().print(render_status(current, dashboard=_dashboard(current)))


def _document(status: RunStatus) -> dict[str, Any]:
    """What `--json` prints of a run."""
    return {**status.to_json(), "dashboard": _dashboard(status)}


def _dashboard(status: RunStatus) -> str | None:
    """Where Ray's dashboard of a run that isn't finished is; None if its cluster is gone."""
    from orchestrator.engine.clusters import running_local_cluster

    record = status.record
    if record.job_id is None or record.state.is_finished:
        return None
    cluster = running_local_cluster() if record.cluster_address is None else None
    return cluster.jobs_address if cluster is not None else record.cluster_address


def stop(
    run: RunArgument,
    now: Annotated[bool, typer.Option("--now", help="End it at once, without a checkpoint.")] = False,
) -> None:
    """Ask a run to save a checkpoint and stop. Asking twice does no harm."""
    directory = find_run(storage_root(), run)
    if not now:
        console().print(stop_with_a_checkpoint(directory), markup=False)
        return
    current = read_status(directory, now=time())
    if current.state.is_finished:
        console().print(f"{directory.name} is {current.state} already: {current.reason}", markup=False)
        return
    from orchestrator.cli.submit import end_at_once  # imports Ray

    end_at_once(current)
    console().print(f"{directory.name} is ended. Go on with it: [bold]dnctl resume {directory.name}[/bold]")


def stop_with_a_checkpoint(run: RunDirectory) -> str:
    """Ask a run to save a checkpoint and stop; returns what comes of it. Raises UsageError if nobody drives it."""
    current = read_status(run, now=time())
    if current.state.is_finished:
        return f"{run.name} is {current.state} already: {current.reason}"
    if current.state in (State.LOST, State.PENDING):
        raise UsageError(
            f"{run.name} is {current.state}: nobody is there to save a checkpoint; "
            f"`dnctl resume {run.name}` goes on with it, `dnctl stop --now {run.name}` gives it up"
        )
    ask_to_stop(run.stop_request)
    return f"{run.name} will save a checkpoint after its next step and stop. See it: dnctl status {run.name}"
