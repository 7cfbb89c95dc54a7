"""`python -m orchestrator.cli.reference`, in a checkout: writes docs/cli.md from the commands' own help."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

WIDTH = 100
_HEAD = """\
# The command line

This page is made from the help of each command by `make docs`.

RUN is a run's name, a unique prefix of one, or `last`. `--json` prints one document on stdout and nothing else there;
what is meant for people goes to stderr. Without a terminal there is no live display and no colour.

| exit code | means |
|---|---|
| 0 | the command did what it was asked; attached to a run, that it SUCCEEDED, or that Ctrl-C left it going |
| 1 | the run FAILED |
| 2 | usage, or an invalid recipe, plan or data set |
| 3 | no such run, checkpoint or cluster |
| 4 | the cluster can't be reached, or the run is LOST |
| 5 | the run diverged |
| 6 | the run was STOPPED |
| 7 | a storage or checkpoint fault |
| 124 | timed out |
| 130 | interrupted |

| environment variable | means |
|---|---|
| `DNCTL_STORAGE` | where runs live; `./runs` otherwise |
| `DNCTL_CLUSTER`, `RAY_ADDRESS` | the cluster that runs are submitted to; this machine's own otherwise |
| `NO_COLOR` | no colour |
"""


def command_reference() -> str:
    """docs/cli.md: what exit codes and variables mean, then the help of each command, WIDTH characters wide."""
    from orchestrator.cli.app import app

    sections = [_HEAD]
    for context in contexts(typer.main.get_command(app)):
        sections.append(f"## {context.command_path}\n\n```\n{context.command.get_help(context).rstrip()}\n```\n")
    return "\n".join(sections)


def contexts(command: Any, parent: typer.Context | None = None) -> Iterator[typer.Context]:
    """A context for a command, and for each of the commands below it, in the order of its help."""
    name = "dnctl" if parent is None else command.name
    context = typer.Context(command, info_name=name, parent=parent, terminal_width=WIDTH)
    context.help_option_names = ["-h", "--help"]
    yield context
    for child in getattr(command, "commands", {}).values():
        yield from contexts(child, context)


if __name__ == "__main__":
    page = Path(__file__).parents[2] / "docs" / "cli.md"
    page.write_text(command_reference(), encoding="utf-8")
    print(f"wrote {page}")
