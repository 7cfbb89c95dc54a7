"""What `dnctl watch` shows of all runs: a function of what was read and of the size of the screen."""

from rich.text import Text

from orchestrator.cli.render_status import list_rows
from orchestrator.cli.screen import fit, fit_block, rule
from orchestrator.monitor.overview import Overview
from orchestrator.run.state import State

WIDE = 100
"""From this many columns on, all that `dnctl list` shows has room."""
_COLUMNS = ("run", "state", "step", "top-1 %", "images/s", "age")
_WIDE_COLUMNS = ("run", "state", "epoch", "step", "loss", "top-1 %", "best %", "images/s", "age")


def render_overview(overview: Overview | None, *, chosen: int | None, width: int, height: int) -> Text:
    """The screen of all runs, `height` lines of `width` cells, the chosen one in sight and marked."""
    if overview is None:
        return Text("\n").join(fit_block(["reading the runs …"], width, height))
    statuses = overview.statuses
    lines = [rule("runs", width, note=_counts(overview))]
    if not statuses:
        lines.append(fit("no runs yet: `dnctl launch RECIPE` starts one", width))
    num_rows = max(height - 2 - len(overview.damaged[:3]), 1)
    first = min(max((chosen or 0) - num_rows // 2, 0), max(len(statuses) - num_rows, 0))
    heading, *rows = list_rows(statuses[first : first + num_rows], _WIDE_COLUMNS if width >= WIDE else _COLUMNS)
    if statuses:
        lines.append(fit(Text.assemble("  ", heading), width))
    for place, row in enumerate(rows, start=first):
        line = fit(Text.assemble("▶ " if place == chosen else "  ", row), width)
        if place == chosen:
            line.stylize("reverse")
        lines.append(line)
    lines += [fit(Text(f"! {fault}", style="bold yellow"), width) for fault in overview.damaged[:3]]
    return Text("\n").join(fit_block(lines, width, height))


def _counts(overview: Overview) -> str:
    """'2 RUNNING, 1 FAILED'."""
    states = [status.state for status in overview.statuses]
    counts = [f"{states.count(state)} {state}" for state in State if state in states]
    return ", ".join([*counts, *([f"{len(overview.damaged)} unreadable"] if overview.damaged else [])])
