"""Logs in segments of JSON lines."""

import logging
from pathlib import Path
from threading import Event

import pytest

from orchestrator.errors import StorageError
from orchestrator.run import files, segments
from orchestrator.run.segments import SegmentWriter, read_segments


def test_rows_come_back_in_order_after_closing(tmp_path: Path):
    rows = [{"step": step, "text": "ü\n"} for step in range(100)]
    writer = SegmentWriter(tmp_path, "metrics")
    for row in rows:
        writer.append(row)
    writer.close()
    assert list(read_segments(tmp_path, "metrics")) == rows


def test_a_flush_puts_rows_on_storage(tmp_path: Path):
    writer = SegmentWriter(tmp_path, "metrics")
    writer.append({"step": 1})
    writer.flush()
    assert list(read_segments(tmp_path, "metrics")) == [{"step": 1}]
    writer.close()


def test_the_thread_flushes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(segments, "FLUSH_INTERVAL_S", 0.01)
    flushed = Event()
    writing = files.write_atomically

    def write(path: Path, content: bytes) -> None:
        writing(path, content)
        flushed.set()

    monkeypatch.setattr(files, "write_atomically", write)
    writer = SegmentWriter(tmp_path, "metrics")
    writer.append({"step": 1})
    assert flushed.wait(10)
    assert list(read_segments(tmp_path, "metrics")) == [{"step": 1}]
    writer.close()


def test_a_full_segment_is_never_touched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 210)
    writer = SegmentWriter(tmp_path, "metrics")
    before: dict[Path, bytes] = {}
    for step in range(20):
        writer.append({"step": step})
        writer.flush()
        present = {path: path.read_bytes() for path in sorted(tmp_path.iterdir())}
        full = [path for path, content in before.items() if len(content) >= 210]
        assert all(present[path] == before[path] for path in full)
        before = present
    writer.close()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"metrics-{number:06d}.jsonl" for number in range(4)]
    assert [row["step"] for row in read_segments(tmp_path, "metrics")] == list(range(20))


def test_appending_does_not_wait_for_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writing, go_on = Event(), Event()
    write = files.write_atomically

    def write_slowly(path: Path, content: bytes) -> None:
        writing.set()
        assert go_on.wait(30)
        write(path, content)

    monkeypatch.setattr(segments, "FLUSH_INTERVAL_S", 0.01)
    monkeypatch.setattr(files, "write_atomically", write_slowly)
    writer = SegmentWriter(tmp_path, "metrics")
    writer.append({"step": 0})
    assert writing.wait(10)
    for step in range(1, 1000):
        writer.append({"step": step})
    assert list(read_segments(tmp_path, "metrics")) == []
    go_on.set()
    writer.close()
    assert [row["step"] for row in read_segments(tmp_path, "metrics")] == list(range(1000))


def test_rows_are_kept_while_storage_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    writer = SegmentWriter(tmp_path, "metrics")
    with monkeypatch.context() as failing:
        failing.setattr(files, "write_atomically", _fail)
        writer.append({"step": 1})
        with pytest.raises(StorageError, match="the disk is full"):
            writer.flush()
    writer.append({"step": 2})
    writer.close()
    assert list(read_segments(tmp_path, "metrics")) == [{"step": 1}, {"step": 2}]
    assert all(record.levelno <= logging.WARNING for record in caplog.records)


def test_a_directory_whose_storage_is_away_is_not_made_and_rows_are_kept_until_it_is_back(tmp_path: Path):
    writer = SegmentWriter(tmp_path / "attempt", "metrics")
    writer.append({"step": 1})
    with pytest.raises(StorageError):
        writer.flush()
    assert not (tmp_path / "attempt").exists()
    (tmp_path / "attempt").mkdir()
    writer.close()
    assert list(read_segments(tmp_path / "attempt", "metrics")) == [{"step": 1}]


def _fail(path: Path, _: bytes) -> None:
    raise StorageError(f"cannot write {path}: the disk is full")


def test_a_line_that_is_cut_short_is_passed_over(tmp_path: Path):
    (tmp_path / "metrics-000000.jsonl").write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    (tmp_path / "metrics-000001.jsonl").write_bytes(b'[3]\n\n\xff\n{"step": 4}\n')
    assert [row["step"] for row in read_segments(tmp_path, "metrics")] == [1, 2, 4]


def test_logs_of_other_names_are_apart(tmp_path: Path):
    for prefix in ("metrics", "events"):
        writer = SegmentWriter(tmp_path, prefix)
        writer.append({"kind": prefix})
        writer.close()
    assert list(read_segments(tmp_path, "events")) == [{"kind": "events"}]
    assert list(read_segments(tmp_path, "nothing")) == []
