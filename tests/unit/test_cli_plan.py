"""`dnctl plan`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli.plan import plan
from orchestrator.errors import PlanError, UsageError
from orchestrator.plan.plan import Plan

app = typer.Typer()
app.command()(plan)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return " ".join(result.stdout.split())


def test_the_papers_arithmetic_is_printed():
    printed = run("densenet169", "--gpus", "H100:4")
    for words in (
        "256 images in 4 batch-norm groups of 64",
        "5,005 an epoch, 450,450 in 90 epochs",
        "143 images, kept and trained on, split over the groups as evenly as can be, each image weighing the same",
        "rank 3 group 3: 64 images of a step",
        "30 to 60 150,150 to 300,299 0.01",
        "Nesterov momentum 0.9, weight decay 0.0001",
        "evaluated after every epoch, 90 times",
        "Time is unknown",
        "The data has not been read",
    ):
        assert words in printed


def test_both_fingerprints_are_printed_whole():
    printed, document = run("densenet169"), json.loads(run("densenet169", "--json"))
    for fingerprint in document["fingerprints"].values():
        assert fingerprint.removeprefix("sha256:") in printed


def test_as_json_it_is_the_plan_that_a_run_keeps():
    planned = Plan.from_json(run("demo", "--json", "--cpus", "4"))
    assert (planned.placement.world_size, planned.placement.cpus_per_worker) == (2, 2)


def test_workers_and_a_described_cluster_show_how_groups_fall():
    printed = run("densenet169", "--gpus", "RTX 3090:8", "--set", "cluster.workers=3")
    assert "rank 0 groups 0, 1, one after another: 128 images of a step" in printed
    assert "2/1/1" in printed


def test_many_workers_are_not_all_listed():
    printed = run("densenet169", "--gpus", "64", "--set", "cluster.workers=64", "--set", "cluster.split_groups=true")
    assert "part 1 of 16 of group 0: 4 images" in printed
    assert "and so on, to rank 63" in printed


def test_what_cannot_run_is_refused():
    with pytest.raises(PlanError, match="9 workers with a GPU each"):
        run("densenet169", "--gpus", "8", "--set", "cluster.workers=9")


def test_a_probe_is_of_this_machine():
    with pytest.raises(UsageError, match="--probe measures this machine"):
        run("densenet169", "--gpus", "8", "--probe")


@pytest.mark.slow
def test_a_probe_gives_a_time_and_says_that_it_was_measured_here(tmp_path: Path):
    """In a process of its own, whose threads and determinism it sets."""
    code = (
        "import typer; from orchestrator.cli.plan import plan; app = typer.Typer(); app.command()(plan); "
        "app(['demo', '--probe', '--json', '--set', 'cluster.workers=1', '--set', f'data.root={ROOT}'])"
    ).replace("{ROOT}", str(tmp_path / "none"))
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    time = Plan.from_json(answer.stdout).estimate.time
    assert time is not None
    assert "measured here on one worker" in time.basis


def test_neither_torch_nor_ray_nor_dali_is_needed():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'torchvision', 'timm', 'ray', 'nvidia.dali'])); "
        "import typer; from orchestrator.cli.plan import plan; app = typer.Typer(); app.command()(plan); "
        "app(['densenet169', '--gpus', 'H100:8'])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "450,450" in answer.stdout
