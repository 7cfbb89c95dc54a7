"""Logs of many processes as one stream."""

from itertools import islice
from pathlib import Path

import pytest

from orchestrator.monitor import logs
from orchestrator.monitor.logs import LogReader
from orchestrator.run.directory import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.create(now=0.0)
    run.claim_attempt("holder")
    return run


def _append(run: RunDirectory, rank: int, *lines: str, attempt: int = 1) -> None:
    with run.attempt(attempt).rank_log(rank).open("a") as log:
        log.write("".join(lines))


def _at(second: float) -> str:
    return f"2026-11-21 02:05:{second:06.3f}".replace(".", ",")


def _texts(reader: LogReader) -> list[str]:
    return [f"{line.source}: {line.text.removeprefix('2026-11-21 02:05:')}" for line in reader.read()]


def test_lines_of_all_processes_come_in_the_order_of_their_times(run: RunDirectory):
    _append(run, 0, f"{_at(1)} a\n", "more of a\n", f"{_at(5)} d\n")
    _append(run, 1, f"{_at(2)} b\n", f"{_at(4)} c\n")
    assert _texts(LogReader(run)) == [
        "rank 0: 01,000 a", "rank 0: more of a", "rank 1: 02,000 b", "rank 1: 04,000 c", "rank 0: 05,000 d",
    ]  # fmt: skip


def test_each_line_comes_once_as_logs_grow(run: RunDirectory):
    reader = LogReader(run)
    assert _texts(reader) == []
    _append(run, 0, "one\n", "tw")
    assert _texts(reader) == ["rank 0: one"]
    _append(run, 0, "o\n")
    _append(run, 1, "late\n")
    assert _texts(reader) == ["rank 0: two", "rank 1: late"]


def test_a_last_line_without_an_end_is_shown_when_the_run_is_over(run: RunDirectory):
    _append(run, 0, "Fatal Python error")
    assert list(LogReader(run).read()) == []
    assert [line.text for line in LogReader(run).read(whole_lines=False)] == ["Fatal Python error"]


def test_lines_that_were_not_consumed_come_again(run: RunDirectory):
    _append(run, 0, "one\n", "two\n", "three\n")
    reader = LogReader(run)
    assert [line.text for line in islice(reader.read(), 2)] == ["one", "two"]
    assert [line.text for line in reader.read()] == ["three"]


def test_attempts_follow_each_other(run: RunDirectory):
    _append(run, 0, f"{_at(9)} first\n")
    run.claim_attempt("holder")
    _append(run, 0, f"{_at(1)} a clock that jumped\n", attempt=2)
    assert [(line.attempt, line.text[24:]) for line in LogReader(run).read()] == [
        (1, "first"),
        (2, "a clock that jumped"),
    ]


def test_one_process_alone(run: RunDirectory):
    _append(run, 0, "zero\n")
    _append(run, 1, "one\n")
    (run.attempt(1).logs / "driver.log").write_text("driver\n")
    assert _texts(LogReader(run, rank=1)) == ["rank 1: one"]
    assert _texts(LogReader(run, driver=True)) == ["driver: driver"]


def test_bytes_that_are_no_text_harm_nothing(run: RunDirectory):
    run.attempt(1).rank_log(0).write_bytes(b"\xff\xfe\x00 broken\nfine\n")
    assert [line.text for line in LogReader(run).read()][1] == "fine"


def test_a_long_log_is_read_in_blocks(run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "BLOCK_BYTES", 7)
    _append(run, 0, *(f"line {number}\n" for number in range(100)))
    assert [line.text for line in LogReader(run).read()] == [f"line {number}" for number in range(100)]


def test_a_page_of_logs_begins_near_the_end_at_a_whole_line(run: RunDirectory):
    _append(run, 0, *(f"line {number}\n" for number in range(100)))
    assert [line.text for line in LogReader(run, tail_bytes=20).read()] == ["line 98", "line 99"]
