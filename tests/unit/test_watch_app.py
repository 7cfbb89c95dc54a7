"""The full screen of `dnctl watch`, driven by keys without a terminal."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import time

import pytest
from textual.pilot import Pilot
from textual.widgets import Log, Static

from orchestrator.cli.watch_app import RunPage, RunsPage, WatchApp
from orchestrator.cli.watch_pages import LogsPage, StopQuestion
from orchestrator.run.progress import read_progress, write_progress
from orchestrator.run.state import State
from tests.run_directories import make_run, make_workers, renew_lease

Step = Callable[[Pilot[None]], Awaitable[None]]
A_LONG_TIME_S = 1e9


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def _drive(app: WatchApp, script: Step, *, size: tuple[int, int] = (80, 24)) -> None:
    async def drive() -> None:
        async with app.run_test(size=size) as pilot:
            await script(pilot)

    asyncio.run(drive())


async def _shows(pilot: Pilot[None], text: str) -> None:
    """Wait until the page on top shows a text."""
    for _ in range(200):
        if text in _text(pilot):
            return
        await pilot.pause(0.05)
    raise AssertionError(f"{text!r} is not in\n{_text(pilot)}")


def _text(pilot: Pilot[None]) -> str:
    screen = pilot.app.screen
    parts = [str(widget.render()) for widget in screen.query(Static)]
    return "\n".join([*parts, *("\n".join(log.lines) for log in screen.query(Log))])


def test_keys_lead_from_all_runs_to_one_to_its_workers_and_logs_and_back(runs: Path):
    run = make_run(runs, "first", workers=make_workers(2))
    run.attempt(1).rank_log(0).write_text("hello from zero\n")
    run.attempt(1).rank_log(1).write_text("hello from one\n")

    async def script(pilot: Pilot[None]) -> None:
        await _shows(pilot, "▶ first")
        await pilot.press("enter")
        await _shows(pilot, "first  RUNNING  training")
        await pilot.press("w")
        await _shows(pilot, "hosts")
        await pilot.press("escape", "l")
        assert isinstance(pilot.app.screen, LogsPage)
        await _shows(pilot, "rank 1 │ hello from one")
        await pilot.press("tab")
        await _shows(pilot, "logs of rank 0")
        assert "hello from one" not in _text(pilot)
        await pilot.press("escape", "escape")
        assert isinstance(pilot.app.screen, RunsPage)

    _drive(WatchApp(runs), script)


def test_keys_move_between_runs(runs: Path):
    for number in range(3):
        make_run(runs, f"run-{number}", state=State.SUCCEEDED, now=1e9 + number)

    async def script(pilot: Pilot[None]) -> None:
        await _shows(pilot, "▶ run-2")
        await pilot.press("down", "down", "down", "enter")
        await _shows(pilot, "run-0  SUCCEEDED")
        await pilot.press("p")
        await _shows(pilot, "run-1  SUCCEEDED")
        await pilot.press("n", "n", "n")
        await _shows(pilot, "run-0  SUCCEEDED")

    _drive(WatchApp(runs), script)


def test_a_stop_is_asked_for_after_a_question_only(runs: Path):
    run = make_run(runs, "first")
    renew_lease(run, now=time(), duration_s=A_LONG_TIME_S)

    async def script(pilot: Pilot[None]) -> None:
        await _shows(pilot, "first  RUNNING")
        await pilot.press("s")
        assert isinstance(pilot.app.screen, StopQuestion)
        await _shows(pilot, "Stop first?")
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, RunPage)
        assert not run.stop_request.exists()
        await pilot.press("s", "y")
        for _ in range(100):
            if run.stop_request.exists():
                break
            await pilot.pause(0.05)
        assert json.loads(run.stop_request.read_text())["now"] is False

    _drive(WatchApp(runs, run), script)


def test_new_figures_and_a_new_size_show_without_a_key(runs: Path):
    run = make_run(runs, "first", workers=make_workers(2))

    async def script(pilot: Pilot[None]) -> None:
        await _shows(pilot, "step 1200/1920")
        assert "learning rate" not in _text(pilot)
        await pilot.resize_terminal(160, 40)
        await _shows(pilot, "learning rate")
        progress = read_progress(run.attempt(1).progress)
        assert progress is not None
        write_progress(run.attempt(1).progress, replace(progress, step=1300))
        await _shows(pilot, "step 1300/1920")

    _drive(WatchApp(runs, run), script)


def test_a_storage_that_hangs_is_said_and_leaves_the_keys_alive(runs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orchestrator.cli.watch_pages.SILENCE_S", 0.3)
    run = make_run(runs, "first")

    async def script(pilot: Pilot[None]) -> None:
        await _shows(pilot, "first  RUNNING")
        monkeypatch.setattr("orchestrator.run.status.read_lease", lambda path: Event().wait())  # as on a hung NFS
        await _shows(pilot, "the storage hasn't answered for")
        assert "first  RUNNING" in _text(pilot)
        await pilot.press("w")
        await _shows(pilot, "no figures of single workers yet")
        await pilot.press("escape", "escape")
        assert isinstance(pilot.app.screen, RunsPage)

    _drive(WatchApp(runs, run), script)


def test_a_fault_of_the_storage_is_shown_and_goes_away(runs: Path):
    run = make_run(runs, "first")
    state = run.state.read_text()

    async def script(pilot: Pilot[None]) -> None:
        await _shows(pilot, "first  RUNNING")
        run.state.write_text("{")
        await _shows(pilot, "state.json is damaged")
        run.state.write_text(state)
        await _shows(pilot, "q quit")

    _drive(WatchApp(runs, run), script, size=(120, 30))
