"""The forecast: histories of failures, against closed forms where there are any, and against what must hold."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.errors import NotFoundError, PlanError, UsageError
from orchestrator.plan.forecast import Costs, Nodes, forecast, simulate
from orchestrator.plan.interval import best_interval_s, daly_interval_s, daly_wall_s, young_interval_s
from orchestrator.run import files
from orchestrator.run.progress import Progress, write_progress
from orchestrator.run.segments import SegmentWriter
from tests.training import make_run

COSTS = Costs(
    work_s=100_000, epoch_s=math.inf, step_s=0.1, hold_s=10, write_s=0, start_s=0, restart_s=60
)  # checkpoints that stop the steps, as Daly has them
NODE = Nodes(count=1, mtbf_s=5000, notice_s=0, replacement_s=0, speeds=(0.0, 1.0))


@pytest.mark.parametrize("mtbf_s", [2000.0, 10_000.0, 100_000.0])
@pytest.mark.parametrize("interval_s", [200.0, 500.0, 2000.0])
def test_the_mean_is_dalys_closed_form(mtbf_s: float, interval_s: float):
    found = simulate(COSTS, replace(NODE, mtbf_s=mtbf_s), interval_s=interval_s, num_histories=4000).wall_s
    closed = daly_wall_s(work_s=100_000, interval_s=interval_s, hold_s=10, restart_s=60, mtbf_s=mtbf_s)
    error = found.std() / math.sqrt(found.size)
    assert abs(found.mean() - closed) < 4 * error + 0.003 * closed


def test_the_best_interval_is_about_dalys_and_costs_no_more():
    found = forecast(COSTS, NODE, interval_s=None)
    assert found.daly.interval_s == pytest.approx(daly_interval_s(hold_s=10, mtbf_s=5000))
    assert 0.5 < found.best.interval_s / found.daly.interval_s < 2
    assert found.best.mean_wall_s <= found.daly.mean_wall_s * 1.005
    assert found.young.interval_s == pytest.approx(math.sqrt(2 * 10 * 5000))


def test_without_failures_it_takes_what_is_undisturbed():
    costs = replace(COSTS, start_s=30, write_s=5)
    found = forecast(costs, replace(NODE, mtbf_s=1e15), interval_s=990)
    assert found.wall_s.p10 == found.wall_s.p90 == pytest.approx(found.undisturbed_s)
    assert found.undisturbed_s == 30 + 100_000 + (100_000 // 995 + 1) * 10 + 5
    assert found.num_failures == 0


def test_equal_questions_have_equal_answers_and_other_seeds_others():
    first, second = (simulate(COSTS, NODE, interval_s=300, num_histories=50) for _ in range(2))
    assert np.array_equal(first.wall_s, second.wall_s)
    assert not np.array_equal(first.wall_s, simulate(COSTS, NODE, interval_s=300, num_histories=50, seed=2).wall_s)


def test_a_notice_that_is_long_enough_saves_what_would_be_done_again():
    silent = simulate(COSTS, NODE, interval_s=2000).wall_s.mean()
    assert simulate(COSTS, replace(NODE, notice_s=11), interval_s=2000).wall_s.mean() == silent, "too short to save in"
    assert simulate(COSTS, replace(NODE, notice_s=30), interval_s=2000).wall_s.mean() < 0.9 * silent


def test_waiting_for_nodes_takes_time_and_going_on_with_fewer_takes_less():
    two = Nodes(count=2, mtbf_s=20_000, notice_s=0, replacement_s=3000, speeds=(0.0, 0.0, 1.0))
    waits = simulate(COSTS, two, interval_s=500)
    shrinks = simulate(COSTS, replace(two, speeds=(0.0, 0.5, 1.0)), interval_s=500)
    at_once = simulate(COSTS, replace(two, replacement_s=0), interval_s=500)
    assert at_once.wall_s.mean() < shrinks.wall_s.mean() < waits.wall_s.mean()
    assert (waits.node_s <= 2 * waits.wall_s).all()


def test_nodes_fail_while_the_run_waits_for_others():
    many = Nodes(count=64, mtbf_s=86_400, notice_s=0, replacement_s=1800, speeds=(*[0.0] * 64, 1.0))
    costs = replace(COSTS, hold_s=0.01, restart_s=0.01)
    found = simulate(costs, many, interval_s=20, num_histories=100)
    all_are_up = (86_400 / (86_400 + 1800)) ** 64
    assert found.wall_s.mean() == pytest.approx(costs.work_s / all_are_up, rel=0.05)


def test_a_run_that_never_ends_is_said_to_take_no_end_of_time():
    hopeless = forecast(replace(COSTS, restart_s=1000), replace(NODE, mtbf_s=50), interval_s=1000)
    assert math.isinf(hopeless.wall_s.p10)
    assert hopeless.goodput == 0


def test_epochs_are_saved_whatever_the_clock_says():
    by_epoch = simulate(replace(COSTS, epoch_s=500), NODE, interval_s=math.inf)
    by_clock = simulate(COSTS, NODE, interval_s=500)
    assert by_epoch.wall_s.mean() == pytest.approx(by_clock.wall_s.mean())


def test_intervals_are_the_formulas():
    assert young_interval_s(hold_s=0.5, mtbf_s=3600) == pytest.approx(60)
    assert daly_interval_s(hold_s=0.5, mtbf_s=3600) == pytest.approx(60, rel=0.01)
    assert daly_interval_s(hold_s=100, mtbf_s=10) == 10
    assert best_interval_s(hold_s=0.5, write_s=0, mean_time_between_failures_s=3600) == pytest.approx(60)


PLANNED = [
    "plan",
    "densenet121",
    "--gpus",
    "RTX 3090:4",
    "--set",
    "train.precision=fp16",
    "--set",
    "train.channels_last=true",
]


def dnctl(*arguments: str) -> Any:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout) if "--json" in arguments else " ".join(result.stdout.split())


def test_plan_prints_a_forecast_with_money():
    printed = dnctl(*PLANNED, "--mtbf-hours", "24", "--notice-s", "120", "--price-per-hour", "10")
    for words in (
        "1 node fails every 24 h each, 120 s before they say so",
        "in 80 % of them",
        "goodput",
        "money",
        "Daly",
    ):
        assert words in printed


def test_as_json_it_is_part_of_the_plan():
    document = dnctl(*PLANNED, "--nodes", "2", "--mtbf-hours", "6", "--price-per-hour", "3", "--json")
    found = document["forecast"]
    assert found["hours"]["p10"] <= found["hours"]["p50"] <= found["hours"]["p90"]
    assert found["hours"]["p10"] >= found["undisturbed_hours"] > document["estimate"]["time"]["total_h"]
    assert found["price"]["mean"] == pytest.approx(3 * found["node_hours"]["mean"])
    assert found["speeds"] == [0.0, 0.0, 1.0]
    assert found["failures"] > 1
    assert "assumed" in " ".join(found["rests_on"])


def test_money_is_what_the_recipe_says_of_its_workers_unless_a_price_is_given():
    priced = ["--set", "cluster.price_per_worker_hour=2", "--set", "cluster.workers=4", "--nodes", "2"]
    found = dnctl(*PLANNED, *priced, "--mtbf-hours", "6", "--json")["forecast"]
    assert found["price_per_hour"] == 4.0, "two workers a node"
    assert found["price"]["p50"] == pytest.approx(4 * found["node_hours"]["p50"])
    assert (
        dnctl(*PLANNED, *priced, "--mtbf-hours", "6", "--price-per-hour", "1", "--json")["forecast"]["price_per_hour"]
        == 1
    )


def test_an_elastic_run_goes_on_with_fewer_nodes():
    elastic = ["--set", "cluster.workers={min: 1, max: 4}", "--nodes", "4", "--mtbf-hours", "6", "--json"]
    assert dnctl(*PLANNED, *elastic)["forecast"]["speeds"] == [0.0, 0.25, 0.5, 0.5, 1.0]


def test_without_a_known_step_there_is_no_forecast():
    with pytest.raises(PlanError, match="name a run like it with --like RUN, or measure here with --probe"):
        dnctl("plan", "demo", "--mtbf-hours", "1")


def test_what_belongs_to_a_forecast_needs_one():
    with pytest.raises(UsageError, match="--notice-s, --price-per-hour: that goes with --mtbf-hours"):
        dnctl(*PLANNED, "--notice-s", "120", "--price-per-hour", "1")


@pytest.fixture
def like(tmp_path: Path, small_images: Path) -> Path:
    """A run of two attempts: 6 steps of 2 s, an evaluation of 3 s, 12 s to the first step, 20 s to start again."""
    run = make_run(tmp_path / "runs" / "like", small_images, workers=1)
    figures = {"num_steps": 9, "num_epochs": 3, "steps_per_epoch": 3, "world_size": 1, "epoch": 1}
    seconds = {"data": 1.0, "compute": 5.0, "communication": 0.0, "checkpoint": 0.5, "evaluation": 3.0}
    for number, (submitted_at, at) in enumerate([(1000.0, 1021.5), (None, 1051.0)]):
        attempt = run.claim_attempt("test")
        files.write_json(attempt.owner, {"holder": "test", "submitted_at": submitted_at, "claimed_at": 1002.0})
        write_progress(
            attempt.progress,
            Progress(
                step=3 * number + 3,
                first_step=3 * number,
                at=at,
                seconds=seconds,
                checkpoint_hold_s=0.25,
                checkpoint_write_s=1.5,
                **figures,
            ),
        )
        events = SegmentWriter(attempt.path, "events")
        events.append({"time": at, "event": "evaluated", "epoch": number + 1, "top1": 50.0, "top5": 90.0})
        events.close()
    return small_images


def test_like_takes_what_a_run_was_measured_to_take(like: Path):
    demo = ["plan", "demo", f"--set=data.root={like}", "--set=cluster.workers=1", "--set=train.global_batch_size=16"]
    demo += ["--set=data.train.image_size=32", "--set=train.epochs=30"]
    found = dnctl(*demo, "--mtbf-hours", "1", "--like", "like", "--json")["forecast"]
    costs = found["costs"]
    assert costs["step_s"] == 2.0
    assert (costs["hold_s"], costs["write_s"], costs["start_s"], costs["restart_s"]) == (0.25, 1.5, 12.0, 20.0)
    assert costs["work_s"] == pytest.approx(30 * (46 / 16 * 2.0 + 3.0))
    assert found["rests_on"] == ["steps as like took", "checkpoints as like took", "start and restart as like took"]


def test_a_run_of_another_network_is_not_like_it(like: Path):
    with pytest.raises(UsageError, match="--like like: it trains densenet_demo on 32 px"):
        dnctl(*PLANNED, "--mtbf-hours", "1", "--like", "like")
    with pytest.raises(NotFoundError):
        dnctl(*PLANNED, "--mtbf-hours", "1", "--like", "nothing")
