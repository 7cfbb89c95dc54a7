"""Following a run: what an attached `launch` shows until the run ends or the person leaves.

All of it is read from the run directory, so following costs the run nothing and a lost connection ends nothing.
"""

from collections.abc import Iterator
from enum import Enum
from time import monotonic, sleep, time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.output import human_time, stderr
from orchestrator.cli.render_status import accuracy, state_text
from orchestrator.cli.submit import fault_of_pending
from orchestrator.errors import ClusterError, RunLostError
from orchestrator.run.directory import RunDirectory
from orchestrator.run.segments import read_segments
from orchestrator.run.state import State
from orchestrator.run.status import RunStatus, read_status

POLL_INTERVAL_S = 0.5
PENDING_CHECK_INTERVAL_S = 5.0
LINE_INTERVAL_S = 30.0
"""Between two lines of progress where there is no terminal."""


class Followed(Enum):
    """Why following ended."""

    ENDED = "the run ended"
    DETACHED = "the person left"


def exit_code(status: RunStatus) -> int:
    """What an attached command exits with."""
    if status.state is State.LOST:
        return RunLostError.exit_code
    return status.record.exit_code if status.record.exit_code is not None else 1


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


def _statuses(run: RunDirectory) -> Iterator[RunStatus]:
    """The run's status twice a second, until it ended."""
    checked_at = monotonic()
    while True:
        status = read_status(run, now=time())
        yield status
        if status.state.is_finished or status.state is State.LOST:
            return
        if status.state is State.PENDING and monotonic() - checked_at > PENDING_CHECK_INTERVAL_S:
            checked_at = monotonic()
            fault = fault_of_pending(status)
            if fault is not None:
                raise ClusterError(f"run {run.name} can't begin: {fault}")
        sleep(POLL_INTERVAL_S)


def _follow_live(run: RunDirectory, console: Console) -> None:
    news = _News(run)
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        for status in _statuses(run):
            for line in news.since_last(status):
                live.console.print(line)
            live.update(render_live(status))


def _follow_in_lines(run: RunDirectory, console: Console) -> None:
    news = _News(run)
    printed_at = monotonic()
    for status in _statuses(run):
        for line in news.since_last(status):
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
        self._num_seen = 0

    def since_last(self, status: RunStatus) -> Iterator[Text]:
        """Lines for what is new."""
        if status.record.attempt != self._attempt:
            self._attempt, self._num_seen = status.record.attempt, 0
        if self._attempt:
            events = list(read_segments(self._run.attempt(self._attempt).path, "events"))
            for event in events[self._num_seen :]:
                line = _event_line(event)
                if line is not None:
                    yield Text(line)
            self._num_seen = len(events)
        if status.state is not State.RUNNING and (status.state, status.reason) != self._state:
            yield Text.assemble(state_text(status.state), "  ", status.reason)
        self._state = (status.state, status.reason)


def _event_line(event: dict[str, object]) -> str | None:
    """A line for an event, or None if it is of no interest here."""
    match event:
        case {"event": "training_starts", "world_size": workers}:
            return f"training begins on {workers} workers"
        case {"event": "training_resumes", "step": step, "checkpoint": checkpoint, "world_size": workers}:
            return f"training goes on at step {step} from {checkpoint} on {workers} workers"
        case {"event": "evaluated", "epoch": epoch, "top1": float(top1), "top5": float(top5)}:
            return f"epoch {epoch}: top-1 {top1:.2f} %, top-5 {top5:.2f} %"
        case {"event": "checkpoint_passed_over", "reason": reason}:
            return f"passed over a damaged checkpoint: {reason}"
        case {"event": "diverged", "step": step, "loss": loss}:
            return f"diverged at step {step}: loss {loss}"
    return None


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
