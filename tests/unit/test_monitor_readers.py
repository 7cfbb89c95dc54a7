"""What a live view reads: each thing once, bounded, and whatever state the directory is in."""

import json
import os
from dataclasses import replace
from pathlib import Path
from time import sleep

import pytest

from orchestrator.errors import NotFoundError
from orchestrator.monitor import curve
from orchestrator.monitor.curve import GrowingCurve
from orchestrator.monitor.news import news_of
from orchestrator.monitor.overview import OverviewReader
from orchestrator.monitor.poller import Poller
from orchestrator.monitor.run_reader import MAX_NEWS, RunReader
from orchestrator.monitor.view import doing, nodes, phase_shares
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.segments import SegmentReader, SegmentWriter, segment_path
from orchestrator.run.state import State, write_state
from orchestrator.run.workers import read_workers, write_workers
from tests.run_directories import STRAGGLER, make_run, make_workers


def test_a_segment_reader_hands_out_each_row_once_and_reads_no_byte_twice(tmp_path: Path):
    writer, reader = SegmentWriter(tmp_path, "events"), SegmentReader(tmp_path, "events")
    seen = []
    for number in range(3000):
        writer.append({"number": number, "padding": "x" * 50})
        if number % 500 == 0:
            writer.flush()
            seen += [row["number"] for row in reader.read()]
    writer.close()
    seen += [row["number"] for row in reader.read()]
    assert seen == list(range(3000))
    assert segment_path(tmp_path, "events", 2).is_file(), "more than one segment was read"
    segment_path(tmp_path, "events", 0).unlink()  # what was read is not needed any more
    assert list(reader.read()) == []


def test_a_line_that_is_not_whole_yet_is_read_when_it_is(tmp_path: Path):
    path, reader = segment_path(tmp_path, "events", 0), SegmentReader(tmp_path, "events")
    assert list(reader.read()) == []
    path.write_bytes(b'{"a": 1}\nnot JSON\n{"a"')
    assert list(reader.read()) == [{"a": 1}]
    path.write_bytes(b'{"a": 1}\nnot JSON\n{"a": 2}\n')
    assert list(reader.read()) == [{"a": 2}]


def test_a_curve_keeps_its_shape_in_bounded_memory():
    growing = GrowingCurve()
    for step in range(100_000):
        growing.add(step, float(step))
    drawn = growing.curve()
    assert len(drawn.x) < curve.MAX_POINTS
    assert drawn.x[-1] > 99_000
    assert all(abs(x - y) < 200 for x, y in zip(drawn.x, drawn.y, strict=True))


def test_steps_that_are_done_again_replace_those_before():
    growing = GrowingCurve()
    for step in (1, 2, 3, 4):
        growing.add(step, 1.0)
    growing.add(3, 9.0)
    assert growing.curve() == curve.Curve(x=(1, 2, 3), y=(1.0, 1.0, 9.0))


def test_a_view_holds_what_the_run_directory_says(tmp_path: Path):
    run = make_run(tmp_path, "first", workers=make_workers(2, stragglers=[STRAGGLER]))
    view = RunReader(run).read()
    assert view.status.state is State.RUNNING
    assert (view.loss.x[-1], len(view.loss.x)) == (1200, 120)
    assert view.top1.x == (1, 2, 3, 4, 5)
    assert [item.text for item in view.news][:2] == [
        "training begins on 2 workers",
        "epoch 1: top-1 40.00 %, top-5 99.00 %",
    ]
    assert view.stragglers == (STRAGGLER,)
    assert view.status.stragglers == (STRAGGLER,)


def test_a_second_look_adds_what_is_new_alone(tmp_path: Path):
    run = make_run(tmp_path, "first")
    reader = RunReader(run)
    before = reader.read()
    path = segment_path(run.attempt(1).path, "events", 0)
    path.write_bytes(path.read_bytes() + json.dumps({"time": 1.0, "event": "novelty", "size": 3}).encode() + b"\n")
    after = reader.read()
    assert [item.text for item in after.news[len(before.news) :]] == ["novelty size 3"]
    assert after.loss == before.loss


def test_a_new_attempt_goes_on_with_the_curves_of_the_one_before(tmp_path: Path):
    run = make_run(tmp_path, "first")
    reader = RunReader(run)
    reader.read()
    files.write_json(run.attempt(1).path / "worker-failure-000.json", {"reason": "starting again after worker 1: gone"})
    attempt = run.claim_attempt("holder")
    rows = [{"step": 610, "loss": 7.0}]
    segment_path(attempt.path, "metrics", 0).write_text("".join(json.dumps(row) + "\n" for row in rows))
    resumed = {"time": 2.0, "event": "training_resumes", "step": 600, "checkpoint": "step-00000600.1", "world_size": 1}
    segment_path(attempt.path, "events", 0).write_text(json.dumps(resumed) + "\n")
    write_state(run.state, replace(run.read_state(), attempt=2))
    view = reader.read()
    assert (view.loss.x[-2:], view.loss.y[-1]) == ((600, 610), 7.0)
    assert [item.text for item in view.news][-2:] == [
        "starting again after worker 1: gone",
        "training goes on at step 600 from step-00000600.1 on 1 worker",
    ]
    assert view.news[-2].is_bad


def test_a_hundred_thousand_events_are_read_once_and_the_latest_kept(tmp_path: Path):
    run = make_run(tmp_path, "first", num_rows=0)
    line = json.dumps({"time": 1.0, "event": "checkpoint_saved", "checkpoint": "step-00000001.1", "step": 1}) + "\n"
    for number in range(100):
        segment_path(run.attempt(1).path, "events", number).write_text(line * 1000)
    reader = RunReader(run)
    assert len(reader.read().news) == MAX_NEWS
    assert reader.num_news == 100_000
    for number in range(99):
        segment_path(run.attempt(1).path, "events", number).unlink()
    assert len(reader.read().news) == MAX_NEWS


def test_a_run_that_vanishes_is_said_to_be_gone(tmp_path: Path):
    with pytest.raises(NotFoundError, match="there is no run at"):
        RunReader(RunDirectory(tmp_path / "nothing")).read()


def test_an_overview_reads_again_only_runs_that_can_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("one", "two"):
        make_run(tmp_path, name, state=State.SUCCEEDED)
    make_run(tmp_path, "three")
    reader = OverviewReader(tmp_path)
    assert [status.run.name for status in reader.read().statuses] == ["three", "two", "one"]
    read: list[str] = []
    original = RunDirectory.read_state

    def read_state(run: RunDirectory):
        read.append(run.name)
        return original(run)

    monkeypatch.setattr(RunDirectory, "read_state", read_state)
    reader.read()
    assert read == ["three"]


def test_an_overview_names_damaged_runs_and_shows_the_others(tmp_path: Path):
    make_run(tmp_path, "good")
    make_run(tmp_path, "bad").state.write_text("{")
    (tmp_path / "a file").write_text("no run")
    overview = OverviewReader(tmp_path).read()
    assert [status.run.name for status in overview.statuses] == ["good"]
    assert len(overview.damaged) == 1
    assert "bad/state.json is damaged" in overview.damaged[0]


def test_an_overview_of_a_storage_that_is_not_there_yet_is_empty(tmp_path: Path):
    assert OverviewReader(tmp_path / "nothing").read().statuses == []


def test_a_poller_stays_alive_when_storage_hangs(tmp_path: Path):
    pipe = tmp_path / "state.json"
    os.mkfifo(pipe)  # opening it waits for a writer, as a hung NFS would
    poller = Poller(pipe.read_bytes, interval_s=0.01)
    assert poller.take(0.2) is None
    assert poller.silence_s > 0.1
    pipe.write_bytes(b"there")
    assert poller.take(10.0) == b"there"
    poller.close()


def test_a_poller_keeps_the_fault_until_a_look_succeeds(tmp_path: Path):
    path = tmp_path / "figures"
    poller = Poller(path.read_text, interval_s=0.01)
    while poller.fault is None:
        sleep(0.01)
    assert "the storage can't be read" in str(poller.fault)
    files.write_atomically(path, b"there")
    assert poller.take(10.0) == "there"
    assert poller.fault is None
    poller.close()


def test_workers_survive_the_way_through_their_file(tmp_path: Path):
    workers = make_workers(512, stragglers=[STRAGGLER], gpus=True)
    write_workers(tmp_path / "telemetry.json", workers)
    assert read_workers(tmp_path / "telemetry.json") == workers
    assert (tmp_path / "telemetry.json").stat().st_size < 100_000


@pytest.mark.parametrize("damage", ["{", "[]", '{"format_version": 1}', '{"format_version": 9, "stragglers": []}'])
def test_damaged_figures_of_workers_read_as_none(tmp_path: Path, damage: str):
    (tmp_path / "telemetry.json").write_text(damage)
    assert read_workers(tmp_path / "telemetry.json") is None


def test_figures_of_workers_with_a_column_cut_short_read_as_none(tmp_path: Path):
    path = tmp_path / "telemetry.json"
    write_workers(path, make_workers(3))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "host": document["host"][:2]}))
    assert read_workers(path) is None


def test_hosts_sum_up_their_workers():
    hosts = nodes(make_workers(12, gpus=True))
    assert [(host.host, len(host.ranks), host.num_gpus) for host in hosts] == [("node-0", 8, 8), ("node-1", 4, 4)]
    assert hosts[0].gpu_memory_used_bytes == 8 * 40 << 30
    assert hosts[0].memory_bytes == 24 << 30
    assert hosts[0].gpu_utilization_percent == 93.0


def test_a_worker_does_what_takes_most_of_its_step():
    workers = make_workers(1)
    assert doing(workers, 0, "training") == "computes"
    assert doing(workers, 0, "evaluating") == "evaluating"


def test_the_parts_of_a_step_sum_to_one(tmp_path: Path):
    shares = phase_shares(RunReader(make_run(tmp_path, "first")).read().status)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert list(shares) == ["data", "compute", "communication"]


def test_events_say_whether_a_person_should_look():
    assert news_of({"event": "diverged", "step": 3, "loss": "nan", "time": 1.0}, attempt=1).is_bad
    assert not news_of({"event": "straggler_ended", "rank": 1, "host": "a", "phase": "data"}, attempt=1).is_bad
    assert news_of({"event": "straggler_ended", "rank": 1, "host": "a", "phase": "data"}, attempt=1).text == (
        "worker 1 on a is no longer slow in data"
    )
    assert news_of({"time": "soon"}, attempt=1).text == "?"


def test_what_the_start_took_and_whether_steps_are_replayed_is_told():
    def told(**event: object) -> str:
        return news_of(event, attempt=1).text

    began = {"event": "first_step", "step": 0, "first_step_s": 61.27}
    assert told(**began, compile_s=48.5) == (
        "the first step was done 61.3 s after the network was set up, of which 48.5 s went into compiling kernels"
    )
    assert told(**began, compile_s=0.0) == "the first step was done 61.3 s after the network was set up"
    assert told(event="cuda_graphs", graphs="replayed") == "steps are recorded, and replayed from now on"
    assert told(event="cuda_graphs", graphs="no memory") == "steps can't be recorded and run as they are: no memory"


def test_a_refused_step_is_told_without_its_thousand_images():
    refused = {"event": "step_refused", "step": 7, "loss": "nan", "grad_norm": "12.34567", "policy": "skip"}
    news = news_of({**refused, "samples": list(range(1000))}, attempt=1)
    assert news.text == "step 7 was not applied: loss nan, gradient norm 12.35; policy: skip"
    assert news.is_bad
    assert (
        news_of({"event": "rolled_back", "step": 9, "to_step": 4}, attempt=1).text == "went back from step 9 to step 4"
    )


def test_nothing_is_written_by_looking(tmp_path: Path):
    run = make_run(tmp_path, "first", workers=make_workers(2))
    before = {path: path.stat().st_mtime_ns for path in sorted(run.path.rglob("*"))}
    RunReader(run).read()
    OverviewReader(tmp_path).read()
    assert {path: path.stat().st_mtime_ns for path in sorted(run.path.rglob("*"))} == before
