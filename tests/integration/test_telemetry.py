"""The first rank knows what all do, from the all-reduce that a step makes anyway."""

import os
from pathlib import Path

import pytest

from orchestrator.run.workers import read_workers
from tests.training import make_run, train_ranks


@pytest.mark.slow
def test_the_first_rank_leaves_the_figures_of_all_and_names_who_is_slow_in_what(
    small_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SLOW", "data,compute")
    overrides = ["train.epochs=17", "train.batch_norm_groups=2", "eval.every_epochs=17", "train.optimizer.lr=0.001"]
    trained = train_ranks(make_run(tmp_path / "run", small_images, workers=2, overrides=overrides), workers=2)
    workers = read_workers(trained.run.attempt(1).telemetry)
    assert workers is not None
    assert len(set(workers.process_id)) == 2
    assert os.getpid() not in workers.process_id
    assert workers.device == ("cpu", "cpu")
    assert all(memory is not None and 50e6 < memory < 50e9 for memory in workers.process_memory_bytes)
    assert workers.gpu_memory_bytes == (None, None)
    assert workers.data_s[0] > workers.data_s[1] + 0.1
    assert workers.compute_s[1] > workers.compute_s[0] + 0.1
    events = trained.events("straggler")
    assert {(event["rank"], event["phase"]) for event in events} >= {(0, "data"), (1, "compute")}
    assert {event["step"] <= 50 for event in events} == {True}
    assert {(straggler.rank, straggler.phase) for straggler in workers.stragglers} == {(0, "data"), (1, "compute")}
