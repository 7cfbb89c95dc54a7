"""The command `dnctl`: its commands, and how an error becomes a message and an exit code.

Modules of commands import what is heavy (torch, Ray, DALI, and rich, too) inside the command that needs it, so that
`--help` and what only reads files start in a fraction of a second. Help is plain text for the same reason: typer's own
rendering of it costs more than all the rest of `--help`.
"""

import logging
import os
import sys
from typing import Annotated

import typer

from orchestrator import __version__
from orchestrator.cli import (
    checkpoint,
    cluster,
    data,
    doctor,
    eval,
    launch,
    logs,
    lr_find,
    model,
    plan,
    prune,
    recipe,
    report,
    runs,
    sweep,
    watch,
)
from orchestrator.cli.output import stderr
from orchestrator.errors import DnctlError
from orchestrator.redaction import redacted

INTERRUPTED = 130

app = typer.Typer(
    name="dnctl",
    help="Train DenseNets on ImageNet across machines that may go away.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command(name="launch")(launch.launch)
app.command(name="resume")(launch.resume)
app.command(name="plan")(plan.plan)
app.command(name="sweep")(sweep.sweep)
app.command(name="lr-find")(lr_find.lr_find)
app.command(name="list")(runs.list_runs)
app.command(name="status")(runs.status)
app.command(name="watch")(watch.watch)
app.command(name="logs")(logs.logs)
app.command(name="wait")(logs.wait)
app.command(name="stop")(runs.stop)
app.command(name="prune")(prune.prune)
app.command(name="eval")(eval.evaluate_model)
app.command(name="report")(report.report)
app.add_typer(checkpoint.app, name="checkpoint", help="What a run has saved, and whether it is whole.")
app.add_typer(data.app, name="data", help="Make and check data sets.")
app.add_typer(recipe.app, name="recipe", help="See and check recipes.")
app.add_typer(model.app, name="model", help="See the networks there are.")
app.add_typer(cluster.app, name="cluster", help="The clusters that runs can go to.")
app.command(name="doctor")(doctor.doctor)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dnctl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens inside to stderr.")] = False,
) -> None:
    """Options before the command."""
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)


def main() -> None:
    """Run the command line; every deliberate error ends as one message on stderr and its exit code."""
    try:
        app()
    except DnctlError as error:
        stderr().print("[bold red]error[/bold red]:", end=" ")
        stderr().print(redacted(str(error)), markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        stderr().print("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
