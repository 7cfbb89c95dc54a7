"""What a report reads of a run, whole, unfinished or damaged, and how runs that differ in their seed come together."""

import json
from pathlib import Path
from time import time

import numpy as np
import pytest

from orchestrator.report.comparison import compare
from orchestrator.report.groups import group_runs
from orchestrator.report.history import read_history
from orchestrator.run.directory import RunDirectory
from orchestrator.run.evaluations import KeptEvaluation, keep_evaluation
from orchestrator.run.family import spread
from orchestrator.run.segments import segment_path
from orchestrator.run.state import State
from tests.report_runs import make_run, write_log

ON_C10PLUS = "densenet40_12_c10plus"
SHORT = "train.epochs=10"


def _history(run: RunDirectory):
    return read_history(run, now=time())


def test_a_finished_run_lacks_nothing(tmp_path: Path):
    history = _history(make_run(tmp_path, "whole", ON_C10PLUS, SHORT, final_error=5.0))
    assert history.missing == ()
    assert history.is_finished
    assert history.steps_per_epoch == 782
    assert len(history.evaluations) == len(history.train_top1.x) == 10
    assert history.train_top1.x[-1] == 7820
    assert history.final is not None
    assert history.final.top1 == pytest.approx(95 - 85 * np.exp(-6))


def test_a_preemption_is_marked_where_it_happened_and_curves_go_on(tmp_path: Path):
    history = _history(make_run(tmp_path, "cut", ON_C10PLUS, SHORT, interrupted_at=0.5))
    assert [(mark.kind, mark.step) for mark in history.marks] == [("preempted", 3910), ("resumed", 3910)]
    assert np.all(np.diff(history.loss.x) > 0)
    assert history.loss.x[-1] == 7820


def test_steps_that_were_done_again_replace_those_that_were_lost(tmp_path: Path):
    run = make_run(tmp_path, "again", ON_C10PLUS, SHORT, epochs_done=3)
    attempt = run.claim_attempt("another")
    beginning = {
        "time": 1.0,
        "event": "training_resumes",
        "step": 782,
        "checkpoint": "step-00000782.1",
        "world_size": 1,
    }
    evaluated = {"time": 2.0, "event": "evaluated", "epoch": 2, "step": 1564, "top1": 50.0, "top5": 90.0}
    write_log(attempt, "events", [beginning, evaluated])
    write_log(attempt, "metrics", [{"time": 1.5, "step": 790, "loss": 7.0, "learning_rate": 0.1, "images_per_s": 1.0}])
    history = _history(run)
    assert [evaluation.step for evaluation in history.evaluations] == [782, 1564]
    assert history.evaluations[-1].top1 == 50.0
    assert (history.loss.x[-1], history.loss.y[-1]) == (790, 7.0)


def test_a_rollback_and_a_lost_worker_are_marked(tmp_path: Path):
    run = make_run(tmp_path, "rolled", ON_C10PLUS, SHORT)
    attempt = run.attempts()[-1]
    lines = segment_path(attempt.path, "events", 0).read_text().splitlines()
    rolled_back = {"time": 1.0, "event": "rolled_back", "step": 900, "to_step": 782, "checkpoint": "step-00000782.1"}
    write_log(attempt, "events", [json.loads(lines[0]), rolled_back, *map(json.loads, lines[1:])])
    (attempt.path / "worker-failure-1.json").write_text('{"format_version": 1, "reason": "worker 1 died"}')
    history = _history(run)
    assert [mark.kind for mark in history.marks] == ["rolled back", "failed"]
    assert [news.text for news in history.news][-1] == "worker 1 died"


def test_metrics_cut_short_are_told_of_and_the_rest_is_shown(tmp_path: Path):
    run = make_run(tmp_path, "cut-short", ON_C10PLUS, SHORT)
    log = segment_path(run.attempts()[-1].path, "metrics", 0)
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2 - 7])
    history = _history(run)
    assert "metrics-000000.jsonl of attempt 1 is cut short or damaged: a line can't be read" in history.missing[0]
    assert "Its metrics end at step 4,066" in history.missing[1]
    assert "though it has done 7,820" in history.missing[1]
    assert history.loss.x[-1] == 4066
    assert history.final is not None


def test_a_run_that_was_never_evaluated_says_how_to_evaluate_it(tmp_path: Path):
    history = _history(make_run(tmp_path, "early", ON_C10PLUS, SHORT, epochs_done=0, state=State.RUNNING))
    assert history.final is None
    assert any("LOST at step 0 of 7,820" in sentence for sentence in history.missing)
    assert any("`dnctl eval early` evaluates its newest checkpoint" in sentence for sentence in history.missing)
    compared = compare(group_runs([history])[0])
    assert (compared.group.top1_error, compared.difference) == (None, None)
    assert "It has been evaluated after none of its 10 epochs yet." in compared.deviations


def test_a_run_that_has_not_begun_says_so(tmp_path: Path):
    run = RunDirectory(tmp_path / "new")
    run.create(now=time())
    plan, begun = _history(run).missing
    assert plan == "It has no plan yet, so nothing can be said of its settings."
    assert begun.startswith("It is PENDING and hasn't begun to train: there are no curves and no results.")


def test_a_damaged_plan_leaves_the_curves(tmp_path: Path):
    run = make_run(tmp_path, "damaged", ON_C10PLUS, SHORT)
    run.plan.write_text(run.plan.read_text()[:-100])
    history = _history(run)
    assert history.plan is None
    assert "plan.json can't be read: The plan can't be read; it is damaged" in history.missing[0]
    assert len(history.loss.x) == 100
    assert history.steps_per_epoch == 782


def test_runs_that_differ_in_their_seed_are_one_group_with_mean_and_deviation(tmp_path: Path):
    family = [
        make_run(tmp_path, f"fam.seed{seed}", ON_C10PLUS, SHORT, f"seed={seed}", final_error=error)
        for seed, error in enumerate((4.0, 6.0, 8.0))
    ]
    other = make_run(tmp_path, "fam.lr", ON_C10PLUS, SHORT, "train.optimizer.lr=0.05", final_error=9.0)
    groups = group_runs([_history(run) for run in (*family, other)])
    assert [group.label for group in groups] == ["fam (seeds 0, 1, 2)", "fam.lr"]
    error = groups[0].top1_error
    assert error is not None
    rest = np.exp(-6)
    assert error.mean == pytest.approx(6.0 + 84 * rest)
    assert error.deviation == pytest.approx(2.0 * (1 - rest))
    assert error.count == 3


def test_only_finished_runs_of_a_group_count(tmp_path: Path):
    done = make_run(tmp_path, "f.seed0", ON_C10PLUS, SHORT, "seed=0", final_error=4.0)
    half = make_run(
        tmp_path, "f.seed1", ON_C10PLUS, SHORT, "seed=1", final_error=50.0, epochs_done=5, state=State.STOPPED
    )
    compared = compare(group_runs([_history(done), _history(half)])[0])
    error = compared.group.top1_error
    assert error is not None
    assert (error.count, error.deviation) == (1, None)
    assert "Not counted in its figures, since they aren't finished: f.seed1." in compared.deviations


def test_the_test_set_counts_where_one_is_held_back(tmp_path: Path):
    run = make_run(tmp_path, "svhn", "densenet100_12_svhn", "train.epochs=4", final_error=2.0, test_error=1.8)
    compared = compare(group_runs([_history(run)])[0])
    assert compared.paper is not None
    assert compared.paper.top1 == 1.67
    assert compared.difference == pytest.approx(1.8 - 1.67)


@pytest.mark.parametrize(("crops", "top1", "top5"), [(1, 25.02, 7.71), (10, 23.61, 6.66)])
def test_imagenet_is_compared_with_the_column_of_its_crops(tmp_path: Path, crops: int, top1: float, top5: float):
    run = make_run(tmp_path, "im", "densenet121", "train.epochs=3", f"data.eval.crops={crops}", final_error=26.0)
    paper = compare(group_runs([_history(run)])[0]).paper
    assert paper is not None
    assert (paper.top1, paper.top5, paper.source) == (top1, top5, "Table 3")


def test_a_network_that_the_paper_has_not_and_a_test_by_other_weights_are_said(tmp_path: Path):
    other = make_run(tmp_path, "other", "densenet121", "train.epochs=2", "model.name=timm:efficientnet_b0")
    (said, *_) = compare(group_runs([_history(other)])[0]).deviations
    assert said.startswith("The paper's tables have no timm:efficientnet_b0 in this setting")
    svhn = make_run(tmp_path, "svhn", "densenet100_12_svhn", "train.epochs=4", "eval.test=last", test_error=1.8)
    compared = compare(group_runs([_history(svhn)])[0])
    assert "The test set was shown to the last weights instead of the best ones." in compared.deviations


def test_a_test_by_earlier_weights_is_of_a_run_that_is_trained_to_its_end(tmp_path: Path):
    run = make_run(tmp_path, "svhn", "densenet100_12_svhn", "train.epochs=4", test_error=1.8)
    (events,) = run.attempt(1).path.glob("events-*.jsonl")
    rows = [json.loads(line) for line in events.read_text().splitlines()]
    rows[-1]["step"] //= 2
    events.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (group,) = group_runs([_history(run)])
    assert (group.epochs_done, group.is_finished) == (4, True)


def test_ten_crops_count_beside_the_own_evaluation_if_they_are_of_the_same_checkpoint(tmp_path: Path):
    run = make_run(tmp_path, "im", "densenet121", "train.epochs=2", final_error=26.0)
    final = _history(run).final
    assert final is not None
    for step, correct1 in ((final.step - 1, 37000), (final.step, 38000)):
        name = f"step-{step:08d}.1"
        keep_evaluation(run.evaluations, _ten_crops(name, step, correct1=correct1, correct5=47000))
    (run.evaluations / "other.json").write_text("{")
    history = _history(run)
    (group,) = group_runs([history])
    assert group.errors_with(10) == (spread([24.0]), spread([6.0]))
    assert group.errors_with(1) == (None, None)
    assert any("dnctl eval` can't be read: other.json" in said for said in history.missing)


def _ten_crops(checkpoint: str, step: int, *, correct1: int, correct5: int) -> KeptEvaluation:
    return KeptEvaluation(
        checkpoint=checkpoint, step=step, crops=10, num_images=50_000, correct1=correct1, correct5=correct5
    )


@pytest.mark.parametrize(("recipe", "error"), [("resnet50", 24.01), ("resnet101", 22.44), ("densenet161", 22.2)])
def test_networks_of_the_readmes_are_compared_with_them(tmp_path: Path, recipe: str, error: float):
    overrides = () if recipe != "densenet161" else ("model.name=densenet161",)
    shipped = recipe if recipe != "densenet161" else "densenet121"
    paper = compare(group_runs([_history(make_run(tmp_path, "r", shipped, "train.epochs=2", *overrides))])[0]).paper
    assert paper is not None
    assert (paper.top1, paper.top5) == (error, None)
    assert "README" in paper.source
