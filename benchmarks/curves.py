"""Our DenseNet-BC, the same with fused blocks, and timm's from weights of its own, trained by one loop over seeds.

    python benchmarks/curves.py [--json] [--seeds 0 1 2] [--epochs 6]

Trained on the demo data. Prints loss and error after each epoch, mean and range over seeds, and whether the ranges of
the others overlap with ours at every epoch.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from common import commit, machine
from torch import nn
from unsaved import UnsavedReporter

from orchestrator.data.index import index_dataset
from orchestrator.data.prepare.demo import write_demo
from orchestrator.engine.planning import make_plan
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.plan import Plan
from orchestrator.recipe.load import load_recipe
from orchestrator.train import loop
from orchestrator.train.network import build_network
from orchestrator.train.world import World
from tests.peers import timm_densenet_for_small_images

Build = Callable[[Plan, torch.device], nn.Module]


class Recorder(UnsavedReporter):
    """Keeps what each evaluation said, and nothing else."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def event(self, kind: str, **details: object) -> None:
        """Keep an evaluation."""
        if kind == "evaluated":
            self.epochs.append({"loss": float(details["loss"]), "error": 100 - float(details["top1"])})


def of_timm(plan: Plan, device: torch.device) -> nn.Module:
    numerics = plan.numerics
    model = timm_densenet_for_small_images(
        num_classes=numerics.num_classes, seed=1000 + numerics.seed, growth_rate=12, block_config=(1, 3, 8)
    )
    return model.to(device).train()


def curve(build: Build, root: Path, *, block: str, seed: int, epochs: int) -> list[dict[str, float]]:
    overrides = [f"data.root={root}", f"seed={seed}", f"train.epochs={epochs}", "cluster.workers=1"]
    overrides.append(f"model.block={block}")
    plan = make_plan(load_recipe("demo", overrides), ClusterShape(num_cpus=1))
    loop.build_network = build
    recorder = Recorder()
    loop.train(plan, index_dataset(root), World.single(), recorder)
    return recorder.epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "digits"
        write_demo(root)
        builds: dict[str, tuple[Build, str]] = {
            "ours": (build_network, "reference"),
            "fused": (build_network, "fused"),
            "timm": (of_timm, "reference"),
        }
        curves = {
            name: [curve(build, root, block=block, seed=seed, epochs=arguments.epochs) for seed in arguments.seeds]
            for name, (build, block) in builds.items()
        }
    rows = [row for epoch in range(arguments.epochs) for row in rows_of(curves, epoch)]
    if arguments.json:
        print(json.dumps({"machine": machine(), "commit": commit(), "rows": rows}, indent=2))
        return
    titles = "  ".join(f"{name + ', mean (range)':>28}" for name in builds)
    print(f"{'epoch':>5}  {'figure':8}  {titles}  overlap")
    for row in rows:
        sides = [f"{row[name]['mean']:8.4f} ({row[name]['low']:.4f} to {row[name]['high']:.4f})" for name in builds]
        columns = "  ".join(f"{side:>28}" for side in sides)
        print(f"{row['epoch']:>5}  {row['figure']:8}  {columns}  {row['overlap']}")


def rows_of(curves: dict[str, list[list[dict[str, float]]]], epoch: int) -> list[dict]:
    rows = []
    for figure in ("loss", "error"):
        row: dict = {"epoch": epoch + 1, "figure": figure}
        for name, of_seeds in curves.items():
            values = [of_seed[epoch][figure] for of_seed in of_seeds]
            row[name] = {"mean": statistics.fmean(values), "low": min(values), "high": max(values)}
        ours, others = row["ours"], [row[name] for name in curves if name != "ours"]
        row["overlap"] = all(ours["low"] <= other["high"] and other["low"] <= ours["high"] for other in others)
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
