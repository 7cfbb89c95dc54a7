"""`dnctl cluster`: the clusters that runs can go to, by profile."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.launch import ClusterOption
from orchestrator.cli.output import JsonOption, console, print_json, stderr

if TYPE_CHECKING:
    from orchestrator.engine.clusters import Cluster
    from orchestrator.engine.local_cluster import LocalCluster

app = typer.Typer(no_args_is_help=True)

ClusterArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[CLUSTER]",
        help="A profile's name or file, an http:// address, or 'local'; DNCTL_CLUSTER or 'local' if left out.",
        show_default=False,
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before machines are started or given back.")]


@app.command(name="list")
def list_clusters(json_output: JsonOption = False) -> None:
    """The profiles there are, in ./cluster and shipped with dnctl, and which of them answer."""
    from orchestrator.engine.survey import survey

    entries = survey()
    if json_output:
        print_json([asdict(entry) for entry in entries])
    else:
        from orchestrator.cli.render_cluster import render_survey

        console().print(render_survey(entries))


@app.command()
def status(cluster: ClusterArgument = None, json_output: JsonOption = False) -> None:
    """What a cluster has, what is in use, and what waits for a place and why."""
    from orchestrator.engine import local_cluster
    from orchestrator.engine.clusters import named_cluster, running_local_cluster

    target = named_cluster(cluster)
    if target is None:
        target, running = running_local_cluster(), local_cluster.find()
        if target is None or running is None:
            _report_no_cluster(json_output=json_output)
        else:
            _report_ray(target, running, json_output=json_output)
    elif target.slurm_script is not None:
        _report_slurm(json_output=json_output)
    else:
        _report_ray(target, None, json_output=json_output)


def _report_no_cluster(*, json_output: bool) -> None:
    if json_output:
        print_json({"up": False})
    else:
        console().print("No cluster is up on this machine. `dnctl launch` starts one when it needs it.")


def _report_ray(target: "Cluster", running: "LocalCluster | None", *, json_output: bool) -> None:
    from orchestrator.engine.cluster_state import read_cluster

    state = read_cluster(target.dashboard())
    if json_output:
        gpus = {name: asdict(amount) for name, amount in state.gpus_by_type().items()}
        print_json({"up": True, **_record(running), **asdict(state), "cpus": asdict(state.cpus()), "gpus": gpus})
        return
    from orchestrator.cli.render_cluster import render_cluster

    console().print(render_cluster(state))
    if running is not None:
        console().print(
            f"Its token is in {running.token_path}. It ends {running.idle_minutes:g} minutes after its last run, or "
            "now with `dnctl cluster down`."
        )


def _record(running: "LocalCluster | None") -> dict[str, Any]:
    return {} if running is None else {**asdict(running), "token_path": str(running.token_path)}


def _report_slurm(*, json_output: bool) -> None:
    from orchestrator.engine.slurm_state import read_slurm

    state = read_slurm()
    if json_output:
        print_json({"up": True, **asdict(state)})
    else:
        from orchestrator.cli.render_cluster import render_slurm

        console().print(render_slurm(state))


@app.command()
def up(cluster: ClusterArgument = None, yes: YesOption = False) -> None:
    """Bring a cluster's machines up, with the tool that its profile is for."""
    from orchestrator.engine import local_cluster
    from orchestrator.engine.bring_up import bring_up
    from orchestrator.engine.clusters import profile_of, started_local_cluster

    file = profile_of(cluster)
    if file is not None:
        for line in bring_up(file, ask_first=not yes):
            console().print(line, markup=False, soft_wrap=True)
        return
    if local_cluster.find() is not None:
        console().print("The cluster of this machine is up already.")
        return
    with stderr().status("starting a Ray cluster on this machine"):
        started = started_local_cluster()
    console().print(
        f"A cluster is up on this machine: dashboard {started.jobs_address}. It ends {local_cluster.idle_minutes():g} "
        "minutes after its last run, or now with `dnctl cluster down`."
    )


@app.command()
def down(cluster: ClusterArgument = None, yes: YesOption = False) -> None:
    """End a cluster and all runs on it. Runs can be resumed."""
    from orchestrator.engine import local_cluster
    from orchestrator.engine.bring_up import take_down
    from orchestrator.engine.clusters import profile_of

    file = profile_of(cluster)
    if file is not None:
        for line in take_down(file, ask_first=not yes):
            console().print(line, markup=False, soft_wrap=True)
        console().print(f"The cluster of {file.name} is down.", markup=False)
        return
    running = local_cluster.find()
    if running is None:
        local_cluster.end_remains()
        console().print("No cluster is up on this machine.")
        return
    local_cluster.stop(running)
    console().print("The cluster of this machine is down.")


@app.command()
def drain(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its host name, address, or Ray's id of it.")],
    deadline: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=10,
            help="When it goes whatever is still there; otherwise it goes when its work has left.",
        ),
    ] = None,
    cluster: ClusterOption = None,
    json_output: JsonOption = False,
) -> None:
    """Send a node away: runs on it save after their next step and go on elsewhere, or with fewer workers."""
    from orchestrator.engine.clusters import named_cluster, running_local_cluster
    from orchestrator.engine.departure import send_away
    from orchestrator.errors import ClusterError, UsageError

    target = named_cluster(cluster) or running_local_cluster()
    if target is None:
        raise ClusterError("no cluster is up on this machine; name another with --cluster")
    if target.slurm_script is not None:
        raise UsageError(f"nodes of {target.name} are Slurm's: `scontrol update NodeName={node} State=DRAIN Reason=…`")
    with stderr().status("telling Ray"):
        nodes = send_away(target, node, deadline_s=deadline)
    if json_output:
        print_json({"nodes": [asdict(node) for node in nodes], "deadline_s": deadline})
        return
    when = "when its work has left" if deadline is None else f"in {deadline:g} s at the latest"
    console().print(
        f"{nodes[0]} takes no more work and goes {when}. Runs on it save a checkpoint after their next step.",
        markup=False,
        soft_wrap=True,
    )
