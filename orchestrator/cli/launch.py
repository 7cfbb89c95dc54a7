"""`dnctl launch` and `dnctl resume`: from a recipe to a running job, and back to one that stopped."""

from collections.abc import Sequence
from datetime import UTC, datetime
from time import sleep, time
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, print_json, stderr
from orchestrator.cli.runs import RunArgument
from orchestrator.cli.submit import fault_of_pending, submit
from orchestrator.errors import UsageError
from orchestrator.run.after import refuse_order
from orchestrator.run.catalogue import find_run, new_run, storage_root
from orchestrator.run.directory import RunDirectory
from orchestrator.run.lease import living_holder
from orchestrator.run.state import State
from orchestrator.run.status import read_status

if TYPE_CHECKING:
    from orchestrator.engine.clusters import Cluster
    from orchestrator.plan.plan import Plan
    from orchestrator.recipe.schema import Recipe

SUBMITTED_WITHIN_S = 10.0
"""From claiming a submission to PENDING."""

SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; repeatable.")
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="CLUSTER",
        help="A profile's name or file, the http:// address of a Ray dashboard, or 'local' (the default).",
    ),
]
AfterOption = Annotated[
    list[str] | None,
    typer.Option("--after", metavar="RUN", help="Begin when this run has SUCCEEDED; repeatable.", show_default=False),
]
DetachOption = Annotated[bool, typer.Option("--detach", "-d", help="Submit and return; don't follow the run.")]


def launch(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's file, or the name of a shipped one.")],
    overrides: SetOption = None,
    cluster: ClusterOption = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call the run.")] = None,
    after: AfterOption = None,
    detach: DetachOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Check a recipe, plan it, submit it and follow it to the end. Ctrl-C detaches and leaves the run going."""
    from orchestrator.cli.plan import plan_for
    from orchestrator.engine.clusters import named_cluster
    from orchestrator.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    target = named_cluster(cluster)
    if dry_run:
        _print_plan(_plan_here(loaded, None) if target is None else plan_for(loaded, target), json_output=json_output)
        return
    if target is not None:
        target.refuse_other_storage(storage_root())
    run = new_run(storage_root(), name=name, recipe_name=loaded.name or "run", now=datetime.now(UTC).astimezone())
    others = _runs_before(run, after)
    plan = _plan_here(loaded, run) if target is None else None
    if run.exists():
        _go_on(run, loaded, plan, target, after=others, detach=detach, json_output=json_output)
        return
    _reach(target)
    run.create(now=time())
    submit(run, loaded, plan, target, after=others)
    _finish(run, target, detach=detach, json_output=json_output)


def _reach(target: "Cluster | None") -> None:
    """Raise ClusterError if a cluster doesn't answer, refuses, or has other versions; before anything is written."""
    if target is not None:
        from orchestrator.engine.jobs import connect

        connect(target)


def _runs_before(run: RunDirectory, names: list[str] | None) -> list[RunDirectory]:
    """The runs that this one is to begin after. Raises NotFoundError, or UsageError for an order that can't be."""
    others = {other.name: other for other in (find_run(storage_root(), name) for name in names or ())}
    refuse_order(run, list(others.values()), now=time())
    return list(others.values())


def submit_member(run: RunDirectory, recipe: "Recipe", cluster: str | None) -> bool:
    """Submit a run of a family, unless it has finished or is under way; whether it was submitted.

    Raises UsageError if there is a run of that name that computes something else.
    """
    from orchestrator.engine.clusters import named_cluster
    from orchestrator.engine.planning import load_plan, refuse_other_numerics

    target = named_cluster(cluster)
    if target is not None:
        target.refuse_other_storage(storage_root())
    plan = _plan_here(recipe, run) if target is None else None
    if run.exists():
        before = load_plan(run)
        if before is not None and plan is not None:
            refuse_other_numerics(run, before, plan)
        is_under_way = _is_driven(run)
        status = read_status(run, now=time())  # it may have ended while its lease was watched
        is_waiting = status.state is State.PENDING and fault_of_pending(status) is None
        if status.state is State.SUCCEEDED or is_under_way or is_waiting:
            return False
        _reach(target)
        run.stop_request.unlink(missing_ok=True)
    else:
        _reach(target)
        run.create(now=time())
    submit(run, recipe, plan, target)
    return True


def resume(
    run: RunArgument,
    overrides: SetOption = None,
    cluster: ClusterOption = None,
    after: AfterOption = None,
    detach: DetachOption = False,
    json_output: JsonOption = False,
) -> None:
    """Go on with a run that stopped, failed or was lost, on the cluster that it was on unless another is named.

    It begins at the step after its newest whole checkpoint. --set may change the schedule, the learning rate and the
    number of epochs, also of a run that is finished; the plan then records the deviation, and the old one is kept.
    """
    from orchestrator.engine.clusters import named_cluster
    from orchestrator.recipe.load import load_recipe

    directory = find_run(storage_root(), run)
    loaded = load_recipe(directory.recipe, overrides or [])
    target = named_cluster(cluster, last=directory.read_state().cluster_address)
    if target is not None:
        target.refuse_other_storage(storage_root())
    others = _runs_before(directory, after)
    is_longer = bool(overrides) and _deviate(directory, loaded)
    plan = _plan_here(loaded, directory) if target is None else None
    _go_on(directory, loaded, plan, target, after=others, is_longer=is_longer, detach=detach, json_output=json_output)


def _deviate(run: RunDirectory, recipe: "Recipe") -> bool:
    """Record that the run goes on with another schedule, if it does; whether it then ends later."""
    from orchestrator.engine.deviation import deviate
    from orchestrator.engine.planning import load_plan

    before = load_plan(run)
    if before is not None and _is_driven(run):
        raise UsageError(f"run {run.name} is running; `dnctl stop {run.name}` first, then resume it with --set")
    plan = deviate(run, recipe)
    if before is None or plan is None:
        return False
    for key, was, now in plan.deviations[-1].changes:
        stderr().print(f"deviates from step {plan.deviations[-1].step} on: {key} was {was}, is {now}", markup=False)
    return plan.numerics.num_steps > before.numerics.num_steps


def _is_driven(run: RunDirectory) -> bool:
    """Whether a driver is alive, also one that waits for room; takes until its lease is renewed or has run out."""
    return not run.read_state().state.is_finished and living_holder(run.lease) is not None


def _plan_here(recipe: "Recipe", run: RunDirectory | None) -> "Plan":
    """The plan of a run on this machine; its data is indexed, with a progress bar."""
    from orchestrator.cli.progress import progress_bar
    from orchestrator.engine.planning import load_plan, make_plan
    from orchestrator.plan.cluster import local_shape

    with progress_bar("indexing images") as progress:
        return make_plan(recipe, local_shape(), before=load_plan(run) if run else None, progress=progress)


def _print_plan(plan: "Plan", *, json_output: bool) -> None:
    from orchestrator.cli.render_plan import render_plan

    if json_output:
        typer.echo(plan.to_json())
    else:
        console().print(render_plan(plan))


def _go_on(
    run: RunDirectory,
    recipe: "Recipe",
    plan: "Plan | None",
    target: "Cluster | None",
    *,
    after: Sequence[RunDirectory],
    is_longer: bool = False,
    detach: bool,
    json_output: bool,
) -> None:
    """Resume a run that exists; follow it if it is running; refuse if it is finished or would compute otherwise.

    is_longer: the run was given more steps than it had, so that a finished one isn't any more.
    """
    from orchestrator.engine.planning import load_plan, refuse_other_numerics

    num_submissions = run.num_submissions()
    is_driven = _is_driven(run)
    status = read_status(run, now=time())  # it may have ended while its lease was watched
    if status.state is State.SUCCEEDED and not is_longer:
        raise UsageError(
            f"run {run.name} is finished: {status.reason}; see `dnctl status {run.name}`, "
            "or launch under another --name"
        )
    before = load_plan(run)
    if before is not None and plan is not None:
        refuse_other_numerics(run, before, plan)
    is_under_way = is_driven or (status.state is State.PENDING and fault_of_pending(status) is None)
    if not is_under_way:
        _reach(target)
    if is_under_way:
        if after:
            raise UsageError(f"run {run.name} is {status.state} already; --after is for a run that has yet to begin")
        stderr().print(f"{run.name} is {status.state}; following it")
    elif not run.claim_submission(num_submissions):
        stderr().print(f"somebody else has just gone on with {run.name}; following it")
        deadline = time() + SUBMITTED_WITHIN_S
        while run.read_state().state.is_finished and time() < deadline:
            sleep(0.2)
    else:
        stderr().print(f"going on with {run.name}, which was {status.state}: {status.reason}", markup=False)
        run.stop_request.unlink(missing_ok=True)
        submit(run, recipe, plan, target, after=after)
    _finish(run, target, detach=detach, json_output=json_output)


def _finish(run: RunDirectory, target: "Cluster | None", *, detach: bool, json_output: bool) -> None:
    """Follow a submitted run to its end, or leave it to itself; the command exits with what the run came to."""
    from orchestrator.cli.follow import Followed, follow
    from orchestrator.cli.render_status import next_commands, render_status
    from orchestrator.cli.until_ended import exit_code

    if not detach and follow(run) is Followed.DETACHED:
        detach = True
    status = read_status(run, now=time())
    if json_output:
        print_json(status.to_json())
    elif detach:
        console().print(f"[bold]{run.name}[/bold] goes on by itself. Next:")
        for command in next_commands(status):
            console().print(f"  {command}")
    else:
        console().print(render_status(status))
    if not detach:
        raise typer.Exit(exit_code(status))
