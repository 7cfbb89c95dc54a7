"""`dnctl logs` and `dnctl wait`: what the processes of a run print, and staying until it has ended."""

import json
import sys
from collections.abc import Iterable
from itertools import islice
from time import time
from typing import Annotated

import typer

from orchestrator.cli.output import JsonOption, console, print_json, stderr
from orchestrator.cli.runs import RunArgument
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.monitor.logs import LogLine, LogReader
from orchestrator.run.catalogue import find_run, storage_root
from orchestrator.run.directory import RunDirectory
from orchestrator.run.status import RunStatus, read_status

MAX_LINES_AT_ONCE = 5000


def logs(
    run: RunArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended, and exit with what it came to.")
    ] = False,
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="The log of this worker alone.")] = None,
    driver: Annotated[bool, typer.Option("--driver", help="The log of the driver alone.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON lines: attempt, rank, text.")] = False,
) -> None:
    """What the driver and the workers of a run print, all attempts, in the order of time."""
    if driver and rank is not None:
        raise UsageError("--driver and --rank exclude each other: a run has one driver, which is no worker")
    directory = find_run(storage_root(), run)
    reader = LogReader(directory, rank=rank, driver=driver)
    printer = _Printer(with_source=rank is None and not driver, as_json=json_output)
    if follow:
        _follow(directory, reader, printer)
        return
    printer.print(reader.read(whole_lines=False))
    if printer.num_printed == 0:
        _say_why_nothing(directory, rank)


def _follow(run: RunDirectory, reader: LogReader, printer: "_Printer") -> None:
    from orchestrator.cli.until_ended import exit_code, until_ended

    def new_lines(status: RunStatus) -> list[LogLine]:
        is_over = status.state.is_finished
        lines = reader.read(whole_lines=not is_over)
        return list(lines) if is_over else list(islice(lines, MAX_LINES_AT_ONCE))

    for current, lines in until_ended(run, new_lines):
        printer.print(lines)
        status = current
    stderr().print(f"{run.name} is {status.state}: {status.reason}", markup=False, soft_wrap=True)
    raise typer.Exit(exit_code(status))


def _say_why_nothing(run: RunDirectory, rank: int | None) -> None:
    """Nothing was printed: raise NotFoundError if that worker never was there, otherwise say so."""
    status = read_status(run, now=time())
    world_size = status.progress.world_size if status.progress is not None else None
    if rank is not None and world_size is not None and rank >= world_size:
        raise NotFoundError(f"{run.name} has no worker {rank}: its ranks are 0 to {world_size - 1}")
    stderr().print(f"{run.name} is {status.state} and has no such log yet: {status.reason}", markup=False)


class _Printer:
    """Writes lines to stdout, each with where it comes from unless all come from one process."""

    def __init__(self, *, with_source: bool, as_json: bool) -> None:
        self._with_source = with_source
        self._as_json = as_json
        self._attempt = 0
        self.num_printed = 0

    def print(self, lines: Iterable[LogLine]) -> None:
        """Print lines as they are; on a terminal without what would move its cursor."""
        for line in lines:
            self.num_printed += 1
            if self._as_json:
                document = {"attempt": line.attempt, "rank": line.rank, "text": line.text}
                sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
            else:
                self._print(line)
        sys.stdout.flush()

    def _print(self, line: LogLine) -> None:
        if line.attempt != self._attempt and (self._attempt or line.attempt > 1):
            sys.stdout.flush()
            stderr().print(f"attempt {line.attempt}", style="bold")
        self._attempt = line.attempt
        text = line.text
        if sys.stdout.isatty():
            from orchestrator.cli.screen import plain

            text = plain(text)
        sys.stdout.write(f"{line.source:>8} │ {text}\n" if self._with_source else f"{text}\n")


def wait(
    run: RunArgument,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="S", min=0.0, help="Give up after this many seconds.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Stay until a run has ended, and exit with what it came to: 0 if it SUCCEEDED, 124 if the time is over."""
    from orchestrator.cli.until_ended import exit_code, until_ended

    directory = find_run(storage_root(), run)
    for current, _ in until_ended(directory, lambda _: None, timeout_s=timeout_s):
        status = current
    if json_output:
        print_json(status.to_json())
    else:
        console().print(f"{directory.name} is {status.state}: {status.reason}", markup=False, soft_wrap=True)
    raise typer.Exit(exit_code(status))
