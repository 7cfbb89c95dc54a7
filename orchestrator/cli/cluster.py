"""`dnctl cluster`: the Ray cluster that dnctl keeps on this machine."""

from dataclasses import asdict

import typer

from orchestrator.cli.output import JsonOption, console, print_json

app = typer.Typer(no_args_is_help=True)


@app.command()
def status(json_output: JsonOption = False) -> None:
    """Whether this machine's cluster is up, and where."""
    from orchestrator.engine import local_cluster

    cluster = local_cluster.find()
    if json_output:
        print_json({"up": cluster is not None, **(_describe(asdict(cluster)) if cluster else {})})
    elif cluster is None:
        console().print("No cluster is up on this machine. `dnctl launch` starts one when it needs it.")
    else:
        console().print(
            f"A cluster is up: dashboard {cluster.dashboard_url}, token in {cluster.token_path}. It ends "
            f"{cluster.idle_minutes:g} minutes after its last run, or now with `dnctl cluster down`."
        )


def _describe(record: dict[str, object]) -> dict[str, object]:
    return {**record, "token_path": str(record["token_path"])}


@app.command()
def down() -> None:
    """End this machine's cluster and all runs on it. Runs can be resumed."""
    from orchestrator.engine import local_cluster

    cluster = local_cluster.find()
    if cluster is None:
        console().print("No cluster is up on this machine.")
        return
    local_cluster.stop(cluster)
    console().print("The cluster of this machine is down.")
