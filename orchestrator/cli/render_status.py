"""How runs look on a terminal: a table of one, and a line for each of many."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.output import human_time
from orchestrator.run.ledger import Ledger
from orchestrator.run.progress import Progress
from orchestrator.run.state import State
from orchestrator.run.status import RunStatus

_STYLES = {
    State.SUCCEEDED: "green",
    State.RUNNING: "cyan",
    State.FAILED: "bold red",
    State.LOST: "bold red",
    State.STOPPED: "yellow",
    State.STOPPING: "yellow",
    State.RECOVERING: "yellow",
}

INPUT_BOUND_SHARE = 0.25
"""Of a step spent waiting for images; from here on it is said. The share at which the event log says so, too."""

_NUM_LEFT = 2
"""Columns of text; the others are numbers and end flush."""


def state_text(state: State) -> Text:
    """A state in its colour; the word says it all without."""
    return Text(str(state), style=_STYLES.get(state, ""))


def accuracy(percent: float | None) -> str:
    """An accuracy with two digits, or a dash."""
    return "–" if percent is None else f"{percent:.2f}"


def position(done: int, total: int) -> str:
    """'3/90'."""
    return f"{done}/{total}"


def _figure(cell: Callable[[Progress], str]) -> Callable[[RunStatus], str]:
    """A column of a figure that is not there from the first moment."""
    return lambda status: cell(status.progress) if status.progress is not None else "–"


_COLUMNS: Mapping[str, Callable[[RunStatus], str]] = {
    "run": lambda status: status.run.name,
    "state": lambda status: str(status.state),
    "epoch": _figure(lambda progress: position(progress.epoch, progress.num_epochs)),
    "step": _figure(lambda progress: position(progress.step, progress.num_steps)),
    "loss": _figure(lambda progress: f"{progress.loss:.4f}" if progress.loss is not None else "–"),
    "top-1 %": _figure(lambda progress: accuracy(progress.top1)),
    "best %": _figure(lambda progress: accuracy(progress.best_top1)),
    "images/s": _figure(lambda progress: f"{progress.images_per_s:.1f}" if progress.images_per_s else "–"),
    "age": lambda status: human_time(max(status.at - status.record.created_at, 0)),
}


def next_commands(status: RunStatus) -> list[str]:
    """What a person would type next."""
    name = status.run.name
    if status.state is State.SUCCEEDED:
        return [f"dnctl eval {name}", "dnctl list"]
    if status.state in (State.STOPPED, State.FAILED, State.LOST):
        return [f"dnctl resume {name}", f"dnctl logs {name}"]
    return [f"dnctl watch {name}", f"dnctl logs -f {name}", f"dnctl stop {name}"]


def render_status(status: RunStatus, *, dashboard: str | None = None) -> RenderableType:
    """A table of what is known, and the commands that come next.

    dashboard: the address of Ray's dashboard, where the run's job can be seen.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("run", Text(status.run.name, style="bold"))
    table.add_row("state", Text.assemble(state_text(status.state), "  ", status.reason))
    table.add_row("attempt", _attempt(status))
    for row in _progress_rows(status):
        table.add_row(*row)
    for row in _time_rows(status.ledger):
        table.add_row(*row)
    for row in _limit_rows(status):
        table.add_row(*row)
    table.add_row("directory", Text(str(status.run.path)))
    table.add_row("logs", Text(str(status.run.attempt(status.record.attempt).logs)))
    if dashboard is not None:
        table.add_row("dashboard", Text(dashboard))
    return Group(table, Text("next: " + "   ".join(next_commands(status)), style="dim"))


def render_list(statuses: Sequence[RunStatus]) -> Text:
    """A line for each run."""
    return Text("\n", no_wrap=True).join(list_rows(statuses, tuple(_COLUMNS)))


def list_rows(statuses: Sequence[RunStatus], columns: Sequence[str]) -> list[Text]:
    """A heading and a line for each run. Columns by hand: rich's table takes a second for a thousand rows."""
    rows = [columns, *([_COLUMNS[column](status) for column in columns] for status in statuses)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row, style in zip(rows, ["bold", *(_STYLES.get(status.state, "") for status in statuses)], strict=True):
        name, state, *numbers = (
            cell.ljust(width) if index < _NUM_LEFT else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(Text(f"{name}  ").append(state, style=style).append("  " + "  ".join(numbers)))
    return lines


def _time_rows(ledger: Ledger) -> list[tuple[str, str]]:
    """Wall time, and what of it went where, the largest first."""
    if ledger.goodput is None:
        return []
    parts = sorted(asdict(ledger).items(), key=lambda item: -item[1])
    shares = [f"{name} {100 * part / ledger.wall_s:.0f} %" for name, part in parts if part >= 0.005 * ledger.wall_s]
    return [
        ("wall time", f"{human_time(ledger.wall_s)}: {', '.join(shares)}"),
        ("goodput", f"{100 * ledger.goodput:.1f} % went into steps and evaluations that count"),
    ]


def _limit_rows(status: RunStatus) -> list[tuple[str, str]]:
    """What the run has taken, where it has a limit or a price."""
    limits, spent = status.limits, status.spent
    money, rows = limits.money_of(spent), []
    if limits.max_hours is not None:
        rows.append(("hours", f"{spent.hours:.3g} of {limits.max_hours:g} with workers"))
    if money is not None:
        rows.append(("money", f"{money:.2f}" + (f" of {limits.max_money:g}" if limits.max_money is not None else "")))
    return rows


def _attempt(status: RunStatus) -> str:
    recoveries = max(status.record.attempt - 1, 0)
    return f"{status.record.attempt}" + (f" (went on {recoveries} times)" if recoveries > 1 else "")


def _progress_rows(status: RunStatus) -> list[tuple[str, str]]:
    progress = status.progress
    if progress is None:
        return []
    rows = [
        (
            "step",
            f"{position(progress.step, progress.num_steps)}, epoch {progress.epoch} of {progress.num_epochs} done",
        ),
        ("workers", _workers(progress.world_size, status.world_size_wanted)),
    ]
    if progress.loss is not None and progress.learning_rate is not None:
        rows.append(("loss", f"{progress.loss:.4f} at learning rate {progress.learning_rate:g}"))
    if progress.top1 is not None:
        validation = f"top-1 {accuracy(progress.top1)} %, top-5 {accuracy(progress.top5)} %"
        rows.append(("validation", f"{validation}, best top-1 {accuracy(progress.best_top1)} %"))
    if progress.test_top1 is not None:
        test = f"top-1 {accuracy(progress.test_top1)} %, top-5 {accuracy(progress.test_top5)} %"
        rows.append(("test", f"{test}, error {accuracy(100 - progress.test_top1)} %"))
    if progress.images_per_s:
        rows.append(("speed", f"{progress.images_per_s:.1f} images/s{_input_bound(progress)}"))
    if progress.eta_s and status.state is State.RUNNING:
        rows.append(("time left", human_time(progress.eta_s)))
    age_s = status.checkpoint_age_s
    age = "" if age_s is None else f", {human_time(age_s)} old"
    rows.append(("checkpoint", f"{progress.last_checkpoint}{age}" if progress.last_checkpoint else "none yet"))
    rows += [("slow", straggler.sentence) for straggler in status.stragglers]
    return rows


def _input_bound(progress: Progress) -> str:
    """What to say where a good part of a step is spent waiting for images; nothing otherwise."""
    waiting_s = progress.data_s or 0.0
    step_s = waiting_s + (progress.compute_s or 0.0) + (progress.communication_s or 0.0)
    if waiting_s < INPUT_BOUND_SHARE * step_s or step_s == 0:
        return ""
    return f", input-bound: {waiting_s / step_s:.0%} of a step is waiting for images"


def _workers(now: int, wanted: int | None) -> str:
    return f"{now}" if wanted is None or wanted == now else f"{now}, {wanted} wanted"
