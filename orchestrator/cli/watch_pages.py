"""Pages of `dnctl watch` that stand by themselves: what all pages share, logs as they grow, and a question."""

from collections import deque
from itertools import islice
from threading import Thread
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen
from textual.widgets import Log, Static

from orchestrator.cli.runs import stop_with_a_checkpoint
from orchestrator.cli.screen import fit, plain
from orchestrator.errors import DnctlError
from orchestrator.monitor.logs import LogLine, LogReader
from orchestrator.monitor.poller import Poller
from orchestrator.run.directory import RunDirectory

POLL_INTERVAL_S = 0.5
REFRESH_INTERVAL_S = 0.25
SILENCE_S = 3.0
"""From this long without an answer of the storage on, the screen says so."""
MAX_LOG_LINES = 10_000
LOG_TAIL_BYTES = 64 * 1024
"""Of each log, how much of what is there already the page of logs begins with."""


class Page(Screen[None]):
    """A page that fills the screen, with a line at the bottom for keys, or for what is wrong with the storage."""

    KEYS = ""

    def __init__(self) -> None:
        super().__init__()
        self._texts: dict[str, Text] = {}
        self._trouble = ""

    def compose(self) -> ComposeResult:
        """A body and a foot."""
        yield Static(id="body", markup=False)
        yield Static(id="foot", markup=False)

    def on_mount(self) -> None:
        """Draw now, and again and again."""
        self.set_interval(REFRESH_INTERVAL_S, self._draw_news)
        self.draw()

    def on_resize(self, event: events.Resize) -> None:
        """Draw for the new size."""
        self.draw()

    def on_screen_resume(self) -> None:
        """Draw what changed while another page was shown."""
        self.draw()

    def _draw_news(self) -> None:
        """Every drawing costs some milliseconds, which a run on the same machine would have used."""
        is_seen = self.is_active or (self.app.screen.is_modal and self.is_current)
        if is_seen and self.has_news():
            self.draw()

    def has_news(self) -> bool:
        """Whether anything has changed since it was drawn."""
        return True

    def draw(self) -> None:
        """Show the newest of everything."""

    def is_out_of_date(self, poller: Poller[Any]) -> bool:
        """Whether the foot no longer says how the storage is."""
        return _trouble_with(poller) != self._trouble

    def show(self, body: Text, poller: Poller[Any]) -> None:
        """Put a body on the page, and at its foot the keys, or what is wrong with the storage."""
        self._trouble = _trouble_with(poller)
        line = Text(f"! {self._trouble}", style="bold reverse") if self._trouble else Text(self.KEYS, style="reverse")
        self._put("#body", body)
        self._put("#foot", fit(line, self.size.width))

    def _put(self, selector: str, text: Text) -> None:
        """Into a widget whose size doesn't depend on it."""
        if self._texts.get(selector) != text:
            self._texts[selector] = text
            self.query_one(selector, Static).update(text, layout=False)

    @property
    def body_height(self) -> int:
        """Lines between the top of the screen and the foot."""
        return max(self.size.height - 1, 1)


def _trouble_with(poller: Poller[Any]) -> str:
    """What is wrong with the storage; nothing if it answers."""
    if poller.fault is not None:
        return plain(str(poller.fault))
    if poller.silence_s > SILENCE_S:
        return f"the storage hasn't answered for {poller.silence_s:.0f} s; this is what was seen before"
    return ""


class LogsPage(Page):
    """Logs of one run as they grow: of all processes, or of one."""

    KEYS = " ← back   ↑↓ scroll   end follow   tab one process   q quit"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,left,b", "back"),
        Binding("tab", "next_source", priority=True),
    ]

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._run = run
        self._source: str | None = None
        reader = LogReader(run, tail_bytes=LOG_TAIL_BYTES)
        self._poller: Poller[list[LogLine]] = Poller(
            lambda: list(islice(reader.read(), MAX_LOG_LINES)), interval_s=POLL_INTERVAL_S
        )
        self._lines: deque[LogLine] = deque(maxlen=MAX_LOG_LINES)

    def compose(self) -> ComposeResult:
        """A title, the log, the foot."""
        yield Static(id="body", markup=False)
        yield Log(max_lines=MAX_LOG_LINES)
        yield Static(id="foot", markup=False)

    def on_mount(self) -> None:
        """The title takes a line, the log the rest."""
        super().on_mount()
        self.query_one("#body").styles.height = 1
        self.query_one(Log).focus()

    def on_unmount(self) -> None:
        """Look no more."""
        self._poller.close()

    def draw(self) -> None:
        """Add what is new."""
        while (lines := self._poller.take(0)) is not None:
            self._lines += lines
            self.query_one(Log).write_lines([self._shown(line) for line in lines if self._is_wanted(line)])
        title = Text.assemble((self._run.name, "bold"), f"  logs of {self._source or 'all processes'}")
        if not self._lines:
            title.append("  none yet")
        self.show(fit(title, self.size.width), self._poller)

    def _is_wanted(self, line: LogLine) -> bool:
        return self._source is None or line.source == self._source

    def _shown(self, line: LogLine) -> str:
        return plain(line.text) if self._source is not None else f"{line.source:>8} │ {plain(line.text)}"

    def action_back(self) -> None:
        """To the page before."""
        self.app.pop_screen()

    def action_next_source(self) -> None:
        """Show the next process alone; after the last, all again."""
        sources = [None, *sorted({line.source for line in self._lines}, key=_natural)]
        place = sources.index(self._source) if self._source in sources else 0
        self._source = sources[(place + 1) % len(sources)]
        log = self.query_one(Log)
        log.clear()
        log.write_lines([self._shown(line) for line in self._lines if self._is_wanted(line)])
        self.draw()


class StopQuestion(ModalScreen[None]):
    """Whether a run shall stop. Nothing is asked of the run before the answer is yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "stop"),
        Binding("n,escape,enter,q", "leave"),
    ]

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._run = run

    def compose(self) -> ComposeResult:
        """The question."""
        yield Static(
            f"Stop {self._run.name}?\n\nIt saves a checkpoint after its next step; `dnctl resume` goes on from there."
            "\n\ny  stop it      n  leave it running",
            id="question",
            markup=False,
        )

    def action_stop(self) -> None:
        """Ask the run to stop, from a thread: the storage may hang."""
        Thread(target=self._ask, args=(self.app,), name="stop", daemon=True).start()
        self.dismiss()

    def _ask(self, app: App[None]) -> None:
        try:
            answer, is_fault = stop_with_a_checkpoint(self._run), False
        except DnctlError as error:
            answer, is_fault = str(error), True
        app.call_from_thread(
            app.notify, answer, severity="error" if is_fault else "information", markup=False, timeout=8
        )

    def action_leave(self) -> None:
        """Do nothing."""
        self.dismiss()


def _natural(source: str) -> tuple[str, int]:
    """Sorts 'rank 2' before 'rank 10'."""
    word, _, number = source.partition(" ")
    return word, int(number or 0)
