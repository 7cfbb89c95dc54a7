"""The full screen of `dnctl watch`: keys, scrolling and questions. What it shows is drawn by render_watch and friends.

Storage is read and written by threads alone, so that a storage that hangs leaves the keys alive; the screen then says
how old what it shows is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import App
from textual.binding import Binding, BindingType

from orchestrator.cli.render_overview import render_overview
from orchestrator.cli.render_watch import render_run
from orchestrator.cli.render_workers import render_crew
from orchestrator.cli.watch_pages import POLL_INTERVAL_S, REFRESH_INTERVAL_S, LogsPage, Page, StopQuestion
from orchestrator.monitor.overview import Overview, OverviewReader
from orchestrator.monitor.poller import Poller
from orchestrator.monitor.run_reader import RunReader
from orchestrator.monitor.view import RunView
from orchestrator.run.directory import RunDirectory
from orchestrator.run.status import RunStatus


class WatchApp(App[None]):
    """All runs of a storage, or one run at first."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    #body { height: 1fr; width: 100%; }
    #foot { height: 1; width: 100%; }
    Log { height: 1fr; width: 100%; scrollbar-size-vertical: 1; }
    StopQuestion { align: center middle; }
    #question { width: 64; max-width: 100%; height: auto; border: solid; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", show=False, priority=True),
    ]

    def __init__(self, root: Path, run: RunDirectory | None = None) -> None:
        """root: where the runs are. run: the one to show at first; by default the list of all is shown."""
        super().__init__(ansi_color=True)
        self._first_run = run
        self.overview: Poller[Overview] = Poller(OverviewReader(root).read, interval_s=2 * POLL_INTERVAL_S)
        self.runs: Overview | None = None
        """All runs as last seen."""
        self.theme = "ansi-dark"

    def on_mount(self) -> None:
        """Show all runs, and on top of them the run that was asked for."""
        self.push_screen(RunsPage())
        if self._first_run is not None:
            self.push_screen(RunPage(self._first_run))
        self.set_interval(REFRESH_INTERVAL_S, self._take_overview)

    def _take_overview(self) -> None:
        self.runs = self.overview.take_newest() or self.runs

    def neighbour(self, run: RunDirectory, offset: int) -> RunDirectory | None:
        """The run that many places after one in the list; None at its ends."""
        statuses = self.runs.statuses if self.runs is not None else []
        names = [status.run.name for status in statuses]
        place = names.index(run.name) + offset if run.name in names else -1
        return statuses[place].run if 0 <= place < len(statuses) else None


class _PageOfApp(Page):
    """A page that knows the application's list of runs."""

    @property
    def watch_app(self) -> "WatchApp":
        """The application, by its own type."""
        app = self.app
        assert isinstance(app, WatchApp)
        return app


class RunsPage(_PageOfApp):
    """All runs; one of them is chosen."""

    KEYS = " ↑↓ choose   enter look at it   l logs   s stop   q quit"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)"),
        Binding("down,j", "move(1)"),
        Binding("pageup", "move(-10)"),
        Binding("pagedown", "move(10)"),
        Binding("home,g", "move(-1000000)"),
        Binding("end,G", "move(1000000)"),
        Binding("enter,right", "look"),
        Binding("l", "logs"),
        Binding("s", "stop"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._chosen: str | None = None
        self._drawn: Overview | None = None

    def has_news(self) -> bool:
        """Whether the runs were looked at again, or can't be."""
        return self.watch_app.runs is not self._drawn or self.is_out_of_date(self.watch_app.overview)

    def draw(self) -> None:
        """The list, with the chosen run in sight."""
        overview, poller = self.watch_app.runs, self.watch_app.overview
        self._drawn = overview
        body = render_overview(overview, chosen=self._place, width=self.size.width, height=self.body_height)
        self.show(body, poller)

    @property
    def _statuses(self) -> Sequence[RunStatus]:
        return self.watch_app.runs.statuses if self.watch_app.runs is not None else ()

    @property
    def _place(self) -> int:
        """Where the chosen run is in the list now: runs move as they begin and end, the choice stays with its run."""
        names = [status.run.name for status in self._statuses]
        return names.index(self._chosen) if self._chosen in names else 0

    @property
    def _chosen_run(self) -> RunDirectory | None:
        return self._statuses[self._place].run if self._statuses else None

    def action_move(self, offset: int) -> None:
        """Choose another run."""
        if self._statuses:
            place = min(max(self._place + offset, 0), len(self._statuses) - 1)
            self._chosen = self._statuses[place].run.name
        self.draw()

    def action_look(self) -> None:
        """Open the chosen run."""
        if self._chosen_run is not None:
            self.app.push_screen(RunPage(self._chosen_run))

    def action_logs(self) -> None:
        """Open its logs."""
        if self._chosen_run is not None:
            self.app.push_screen(LogsPage(self._chosen_run))

    def action_stop(self) -> None:
        """Ask whether to stop it."""
        if self._chosen_run is not None:
            self.app.push_screen(StopQuestion(self._chosen_run))


class RunPage(_PageOfApp):
    """One run: curves, workers, events; or, after `w`, all of its workers."""

    KEYS = " ← all runs   n p next, previous run   w workers   l logs   s stop   q quit"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,left,b", "back"),
        Binding("n,j", "go(1)"),
        Binding("p,k", "go(-1)"),
        Binding("w", "workers"),
        Binding("l", "logs"),
        Binding("s", "stop"),
    ]

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._run = run
        self._poller: Poller[RunView] = Poller(RunReader(run).read, interval_s=POLL_INTERVAL_S)
        self._view: RunView | None = None
        self._shows_workers = False

    def on_unmount(self) -> None:
        """Look no more."""
        self._poller.close()

    def has_news(self) -> bool:
        """Whether the run was looked at again, or can't be."""
        newest = self._poller.take_newest()
        self._view = newest or self._view
        return newest is not None or self.is_out_of_date(self._poller)

    def draw(self) -> None:
        """What was seen last."""
        if self._view is None:
            body = Text(f"reading {self._run.path} …")
        else:
            render = render_crew if self._shows_workers else render_run
            body = render(self._view, width=self.size.width, height=self.body_height)
        self.show(body, self._poller)

    def action_back(self) -> None:
        """To all workers' run, or to all runs."""
        if self._shows_workers:
            self.action_workers()
        else:
            self.app.pop_screen()

    def action_go(self, offset: int) -> None:
        """To the run before or after this one in the list."""
        other = self.watch_app.neighbour(self._run, offset)
        if other is not None:
            self.app.switch_screen(RunPage(other))

    def action_workers(self) -> None:
        """Workers and hosts on the whole screen, or no longer."""
        self._shows_workers = not self._shows_workers
        self.draw()

    def action_logs(self) -> None:
        """Open the logs."""
        self.app.push_screen(LogsPage(self._run))

    def action_stop(self) -> None:
        """Ask whether to stop."""
        self.app.push_screen(StopQuestion(self._run))
