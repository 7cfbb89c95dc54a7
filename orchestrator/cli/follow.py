"""Following a run: what an attached `launch` shows until the run ends or the person leaves.

All of it is read from the run directory, so following costs the run nothing and a lost connection ends nothing.
"""

from collections import deque
from collections.abc import Iterator
from enum import Enum
from time import monotonic, time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.output import human_time, stderr
from orchestrator.cli.render_status import accuracy, state_text
from orchestrator.cli.until_ended import until_ended
from orchestrator.monitor.news import news_of
from orchestrator.run.directory import RunDirectory
from orchestrator.run.segments import SegmentReader
from orchestrator.run.state import State
from orchestrator.run.status import RunStatus

LINE_INTERVAL_S = 30.0
"""Between two lines of progress where there is no terminal."""
QUIET = frozenset({"checkpoint_saved", "checkpoint_deleted", "stopped"})
"""Events that an attached launch doesn't print: they come often, or the state says the same."""


MAX_AT_ONCE = 100
"""Lines for events that happened before anybody followed."""


class Followed(Enum):
    """Why following ended."""

    ENDED = "the run ended"
    DETACHED = "the person left"


def follow(run: RunDirectory) -> Followed:
    """Show a run until it ends. Ctrl-C leaves it going. Raises ClusterError if its job can never begin."""
    try:
        if stderr().is_terminal:
            _follow_live(run, stderr())
        else:
            _follow_in_lines(run, stderr())
    except KeyboardInterrupt:
        return Followed.DETACHED
    return Followed.ENDED


def _follow_live(run: RunDirectory, console: Console) -> None:
    news = _News(run)
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        for status, events in until_ended(run, news.events):
            for line in news.lines(status, events):
                live.console.print(line)
            live.update(render_live(status))


def _follow_in_lines(run: RunDirectory, console: Console) -> None:
    news = _News(run)
    printed_at = monotonic()
    for status, events in until_ended(run, news.events):
        for line in news.lines(status, events):
            console.print(line)
        progress = status.progress
        if progress is not None and progress.loss is not None and monotonic() - printed_at > LINE_INTERVAL_S:
            printed_at = monotonic()
            console.print(
                f"step {progress.step}/{progress.num_steps}  loss {progress.loss:.4f}  "
                f"{progress.images_per_s or 0:.1f} images/s"
            )


class _News:
    """What happened to a run, a line each: states and the events that a person wants to know of."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._state: tuple[State, str] | None = None
        self._attempt = 0
        self._events: SegmentReader | None = None

    def events(self, status: RunStatus) -> list[str]:
        """A sentence for each event that is new since the last time, or for the latest of many. Reads storage."""
        attempt = status.record.attempt
        if attempt != self._attempt:
            self._attempt = attempt
            self._events = SegmentReader(self._run.attempt(attempt).path, "events") if attempt else None
        if self._events is None:
            return []
        num_events, latest = 0, deque[str](maxlen=MAX_AT_ONCE)
        for event in self._events.read():
            news = news_of(event, attempt=attempt)
            if news.kind not in QUIET:
                num_events += 1
                latest.append(news.text)
        left_out = num_events - len(latest)
        return [f"… {left_out:,} events before these", *latest] if left_out else [*latest]

    def lines(self, status: RunStatus, events: list[str]) -> Iterator[Text]:
        """Lines for what is new."""
        yield from map(Text, events)
        if status.state is not State.RUNNING and (status.state, status.reason) != self._state:
            yield Text.assemble(state_text(status.state), "  ", status.reason)
        self._state = (status.state, status.reason)


def render_live(status: RunStatus) -> RenderableType:
    """The moving part: state, bars for the epoch and the run, the newest figures."""
    head = Text.assemble((status.run.name, "bold"), "  ", state_text(status.state), f"  {status.reason}")
    if status.state in (State.PENDING, State.STARTING, State.RECOVERING):
        head.append(f"  {human_time(max(time() - status.record.updated_at, 0))}", style="dim")
    progress = status.progress
    if progress is None:
        return head
    bars = Table.grid(padding=(0, 1))
    in_epoch = progress.step - progress.epoch * progress.steps_per_epoch
    epoch = min(progress.epoch + 1, progress.num_epochs)
    bars.add_row(
        f"epoch {epoch}/{progress.num_epochs}",
        ProgressBar(total=progress.steps_per_epoch, completed=in_epoch, width=30),
        f"step {in_epoch}/{progress.steps_per_epoch}",
    )
    left = f"{human_time(progress.eta_s)} left" if progress.eta_s is not None else ""
    bars.add_row(
        "run",
        ProgressBar(total=progress.num_steps, completed=progress.step, width=30),
        f"step {progress.step}/{progress.num_steps}  {left}",
    )
    figures = [
        f"loss {progress.loss:.4f}" if progress.loss is not None else "",
        f"train top-1 {accuracy(progress.train_top1)} %" if progress.train_top1 is not None else "",
        f"val top-1 {accuracy(progress.top1)} %" if progress.top1 is not None else "",
        f"lr {progress.learning_rate:g}" if progress.learning_rate is not None else "",
        f"{progress.images_per_s:.1f} images/s" if progress.images_per_s else "",
    ]
    saved = f"checkpoint {progress.last_checkpoint}" if progress.last_checkpoint else "no checkpoint yet"
    return Group(
        head,
        bars,
        Text("  ".join(figure for figure in figures if figure)),
        Text(f"{saved}   Ctrl-C detaches, the run goes on", style="dim"),
    )
