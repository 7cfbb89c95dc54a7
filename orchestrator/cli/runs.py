"""`dnctl list`, `status` and `stop`: what a run directory says, and asking a run to end."""

from time import time
from typing import Annotated

import typer

from orchestrator.cli.output import JsonOption, console, print_json
from orchestrator.errors import StorageError, UsageError
from orchestrator.run import files
from orchestrator.run.catalogue import find_run, storage_root
from orchestrator.run.catalogue import list_runs as all_runs
from orchestrator.run.state import State
from orchestrator.run.status import read_status

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
        print_json([status.to_json() for status in statuses])
    elif not statuses:
        console().print(f"No runs in {root} yet. `dnctl launch RECIPE` starts one.", markup=False, soft_wrap=True)
    else:
        from orchestrator.cli.render_status import render_list

        console().print(render_list(statuses, now=time()), soft_wrap=True)
    if damaged:
        raise StorageError("\n".join(damaged))


def status(run: RunArgument, json_output: JsonOption = False) -> None:
    """How one run is: state and why, how far, how good, what next."""
    current = read_status(find_run(storage_root(), run), now=time())
    if json_output:
        print_json(current.to_json())
    else:
        from orchestrator.cli.render_status import render_status

        console().print(render_status(current))


def stop(
    run: RunArgument,
    now: Annotated[bool, typer.Option("--now", help="End it at once, without a checkpoint.")] = False,
) -> None:
    """Ask a run to save a checkpoint and stop. Asking twice does no harm."""
    directory = find_run(storage_root(), run)
    current = read_status(directory, now=time())
    if current.state.is_finished:
        console().print(f"{directory.name} is {current.state} already: {current.reason}", markup=False)
        return
    if current.state in (State.LOST, State.PENDING) and not now:
        raise UsageError(
            f"{directory.name} is {current.state}: nobody is there to save a checkpoint; "
            f"`dnctl resume {directory.name}` goes on with it, `dnctl stop --now {directory.name}` gives it up"
        )
    files.write_json(directory.stop_request, {"asked_at": time(), "now": now})
    if now:
        from orchestrator.cli.submit import end_at_once  # imports Ray

        end_at_once(current)
        console().print(f"{directory.name} is ended. Go on with it: [bold]dnctl resume {directory.name}[/bold]")
        return
    console().print(
        f"{directory.name} will save a checkpoint after its next step and stop. "
        f"See it: [bold]dnctl status {directory.name}[/bold]"
    )
