"""What `dnctl watch` draws and prints, without a terminal."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.text import Text
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.cli.chart import bar, draw
from orchestrator.cli.render_overview import render_overview
from orchestrator.cli.render_watch import render_run
from orchestrator.cli.render_workers import render_crew
from orchestrator.cli.screen import plain, short_time
from orchestrator.errors import NotFoundError
from orchestrator.monitor.curve import Curve
from orchestrator.monitor.overview import OverviewReader
from orchestrator.monitor.run_reader import RunReader
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.state import State
from tests.run_directories import STRAGGLER, make_run, make_workers

SIZES = [(80, 23), (80, 24), (200, 50), (120, 30), (40, 10), (20, 3), (1, 1)]


def _lines(screen: Text) -> list[str]:
    return screen.plain.split("\n")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_page_fits_every_screen(runs: Path, width: int, height: int):
    view = RunReader(make_run(runs, "first", workers=make_workers(40, stragglers=[STRAGGLER] * 4, gpus=True))).read()
    overview = OverviewReader(runs).read()
    for screen in (
        render_run(view, width=width, height=height),
        render_crew(view, width=width, height=height),
        render_overview(overview, chosen=0, width=width, height=height),
        render_overview(None, chosen=0, width=width, height=height),
    ):
        lines = _lines(screen)
        assert len(lines) == height
        assert {cell_len(line) for line in lines} == {width}


def test_what_was_seen_is_drawn_without_another_look_at_a_storage_that_may_hang(
    runs: Path, monkeypatch: pytest.MonkeyPatch
):
    view = RunReader(make_run(runs, "first", workers=make_workers(2))).read()
    overview = OverviewReader(runs).read()
    monkeypatch.setattr(files, "open_plain", lambda path: pytest.fail(f"{path} is read"))
    assert "first" in render_run(view, width=80, height=24).plain
    assert "node-0" in render_crew(view, width=80, height=24).plain
    assert "first" in render_overview(overview, chosen=0, width=80, height=24).plain


@pytest.mark.parametrize("width", [80, 200])
def test_a_run_shows_what_a_person_asks(runs: Path, width: int):
    workers = make_workers(2, stragglers=[STRAGGLER])
    shown = render_run(RunReader(make_run(runs, "first", workers=workers)).read(), width=width, height=24).plain
    for part in (
        "first  RUNNING  training", "attempt 1", "epoch 6/8", "step 1200/1920  3 min 08 s left", "lr 0.01",
        "loss 0.1739", "top-1 96.63 %  top-5 100.00 %  best top-1 96.63 %", "SLOW: computes", "600.0 MiB",
        "245.1 images/s  data 4 %  compute 83 %  communication 12 %", "epoch 5: top-1 88.00 %",
        "2 workers on 1 host  checkpoint step-00001200.1, 1", "! worker 1 on node-0 is slow in compute: 0.42 s",
    ):  # fmt: skip
        assert part in shown
    assert ("learning rate" in shown) == (width >= 120)


def test_a_run_without_any_figures_is_shown_too(runs: Path):
    run = RunDirectory(runs / "new")
    run.create(now=0.0)
    shown = render_run(RunReader(run).read(), width=80, height=24).plain
    assert "new  PENDING  created" in shown
    assert "no points yet" in shown
    assert "no figures of single workers yet" in shown


def test_where_workers_do_not_fit_their_hosts_are_shown(runs: Path):
    shown = render_run(
        RunReader(make_run(runs, "first", workers=make_workers(64, gpus=True))).read(), width=80, height=24
    )
    assert "hosts" in shown.plain
    assert "320.0/640.0 GiB" in shown.plain


def test_a_slow_worker_is_shown_however_many_there_are(runs: Path):
    workers = make_workers(512, stragglers=[replace(STRAGGLER, rank=300)])
    lines = _lines(render_crew(RunReader(make_run(runs, "first", workers=workers)).read(), width=100, height=24))
    assert any(line.startswith("300 ") and "SLOW" in line for line in lines)
    assert any("more" in line for line in lines)


def test_text_of_a_run_cannot_move_the_cursor():
    assert plain("progress 1%\rprogress 2%\n") == "progress 2%"
    assert plain("\x1b[2Jgone\x07") == "·[2Jgone·"


def test_the_chosen_run_is_always_in_sight(runs: Path):
    for number in range(40):
        make_run(runs, f"run-{number:02d}", state=State.SUCCEEDED, num_rows=0, now=1e9 + number)
    overview = OverviewReader(runs).read()
    for chosen in (0, 17, 39):
        lines = _lines(render_overview(overview, chosen=chosen, width=80, height=12))
        assert next(line for line in lines if line.startswith("▶ ")).startswith(f"▶ run-{39 - chosen:02d} ")


def test_a_chart_goes_from_corner_to_corner():
    lines = draw(Curve(x=(0, 1), y=(0.0, 1.0)), width=19, height=5, label="{:.1f}".format)
    assert [len(line) for line in lines] == [19] * 5
    assert lines[0].startswith("     1.0│")
    assert lines[-1].startswith("     0.0│")
    assert (lines[-1][9] != "⠀", lines[0][9]) == (True, "⠀")
    assert (lines[0][-1] != "⠀", lines[-1][-1]) == (True, "⠀")


def test_charts_of_nothing_of_one_point_and_of_a_constant():
    assert set(draw(Curve(), width=12, height=2, label=str)) == {"        │⠀⠀⠀"}
    assert sum(line.count("⠀") for line in draw(Curve(x=(5,), y=(2.0,)), width=12, height=2, label=str)) == 5
    constant = draw(Curve(x=(0, 9), y=(2.0, 2.0)), width=12, height=2, label=str, lowest=0.0)
    assert "⠀" not in constant[0][9:]


def test_bars_are_legible_without_colour():
    assert (bar(0.5, 4), bar(-1, 2), bar(7, 2)) == ("██░░", "░░", "██")
    assert [short_time(seconds) for seconds in (0.00012, 0.0123, 0.25, 1.5, 250.0)] == [
        "0.1 ms", "12.3 ms", "250 ms", "1.50 s", "250 s",
    ]  # fmt: skip


def _dnctl(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_without_a_terminal_a_screen_is_printed_once_and_without_colour(runs: Path):
    make_run(runs, "first", workers=make_workers(2))
    shown = _dnctl("watch", "first")
    assert shown == _dnctl("watch", "first", "--once")
    assert "\x1b" not in shown
    assert max(len(line) for line in shown.splitlines()) == 80
    assert "first" in _dnctl("watch")


def test_watch_once_as_json_has_the_keys_of_status(runs: Path):
    make_run(runs, "first", workers=make_workers(2))
    (line,) = _dnctl("watch", "first", "--once", "--json").splitlines()
    document = json.loads(line)
    assert document["kind"] == "status"
    assert document["workers"]["host"] == ["node-0", "node-0"]
    assert json.loads(_dnctl("status", "first", "--json")).keys() - document.keys() == {"dashboard"}
    assert [json.loads(line)["run"] for line in _dnctl("watch", "--once", "--json").splitlines()] == ["first"]


def test_watch_as_json_of_an_ended_run_gives_its_events_and_status_and_ends(runs: Path):
    make_run(runs, "first", state=State.SUCCEEDED)
    documents = [json.loads(line) for line in _dnctl("watch", "first", "--json").splitlines()]
    assert [document["kind"] for document in documents] == ["event"] * 7 + ["status"]
    assert documents[0]["text"] == "training begins on 2 workers"
    assert documents[1]["top1"] == 40.0


def test_watch_of_no_run_is_not_found(runs: Path):
    make_run(runs, "first")
    with pytest.raises(NotFoundError, match="there is no run 'nothing'"):
        _dnctl("watch", "nothing", "--once")


def test_watch_once_imports_neither_torch_nor_textual(runs: Path):
    make_run(runs, "first")
    program = (
        "import sys; from orchestrator.cli.app import app\n"
        "try: app(['watch', 'first'])\n"
        "finally: print([name for name in ('torch', 'ray', 'textual') if name in sys.modules], file=sys.stderr)"
    )
    environment = {**os.environ, "DNCTL_STORAGE": str(runs)}
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
    assert answer.stderr.strip() == "[]"
