"""`dnctl watch`: a live view of all runs, or of one. It reads the storage alone and costs a run nothing."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from time import sleep
from typing import Annotated, Any

import typer

from orchestrator.cli.output import console
from orchestrator.errors import StorageError
from orchestrator.monitor.overview import OverviewReader
from orchestrator.monitor.run_reader import RunReader
from orchestrator.run.catalogue import find_run, storage_root
from orchestrator.run.directory import RunDirectory
from orchestrator.run.state import State
from orchestrator.run.status import RunStatus

INTERVAL_S = 1.0
NICENESS = 10
"""A view gives way to runs on the same machine."""
NARROWEST, LOWEST = 80, 23
"""The size of what is printed where there is no terminal, but for COLUMNS and LINES."""


def watch(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run's name, a unique prefix of one, or 'last'.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print what there is now and end.")] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print JSON lines on stdout: a status when it changed, events as they come.")
    ] = False,
) -> None:
    """A live view of all runs, or of one: how far, how good, how fast, who is slow. Without a terminal, as --once."""
    root = storage_root()
    directory = find_run(root, run) if run is not None else None
    if json_output:
        for document in _documents_of_run(directory, once=once) if directory else _documents(root, once=once):
            print(json.dumps(document, ensure_ascii=False), flush=True)
    elif once or not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        _print_once(root, directory)
    else:
        from orchestrator.cli.watch_app import WatchApp  # takes a while to import

        os.nice(NICENESS)
        WatchApp(root, directory).run()


def _print_once(root: Path, run: RunDirectory | None) -> None:
    from orchestrator.cli.render_overview import render_overview
    from orchestrator.cli.render_watch import render_run

    size = shutil.get_terminal_size((NARROWEST, LOWEST + 1))
    width, height = size.columns, size.lines - 1
    if run is not None:
        screen = render_run(RunReader(run).read(), width=width, height=height)
    else:
        overview = OverviewReader(root).read()
        height = 2 + len(overview.statuses) + len(overview.damaged)
        screen = render_overview(overview, chosen=None, width=width, height=height)
    console().print(screen, soft_wrap=True)


def _documents_of_run(run: RunDirectory, *, once: bool) -> Iterator[dict[str, Any]]:
    """A run's status whenever it changed and its events as they come, until it ended."""
    reader, num_seen = RunReader(run), 0
    before: RunStatus | None = None
    while True:
        view = reader.read()
        news = view.news[len(view.news) - min(reader.num_news - num_seen, len(view.news)) :]
        num_seen = reader.num_news
        for item in news if not once else ():
            yield {"kind": "event", "run": run.name, "attempt": item.attempt, "text": item.text, **item.details}
        if _differs(view.status, before):
            before = view.status
            workers = asdict(view.workers) if view.workers is not None else None
            yield {"kind": "status", **view.status.to_json(), "workers": workers}
        if once or view.status.state.is_finished or view.status.state is State.LOST:
            return
        sleep(INTERVAL_S)


def _documents(root: Path, *, once: bool) -> Iterator[dict[str, Any]]:
    """The status of each run whenever it changed."""
    reader = OverviewReader(root)
    before: dict[str, RunStatus] = {}
    while True:
        overview = reader.read()
        for status in overview.statuses:
            if _differs(status, before.get(status.run.name)):
                yield {"kind": "status", **status.to_json()}
        before = {status.run.name: status for status in overview.statuses}
        if once:
            if overview.damaged:
                raise StorageError("\n".join(overview.damaged))
            return
        sleep(INTERVAL_S)


def _differs(status: RunStatus, before: RunStatus | None) -> bool:
    """Whether there is news beyond the time at which it was read."""
    return before is None or replace(status, at=before.at) != before
