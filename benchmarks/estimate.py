"""How far off is the plan? Its estimates of time and memory against short real runs of the loop on this machine.

    python benchmarks/estimate.py [--json] [--repeats 3] [--cases densenet_demo densenet121]

Each case is planned, with the rate from the table and with one that a probe measures, and then trained to its end in a
process of its own, on one worker. A ratio is estimated / measured: 1 is exact, and above 1 the run took less than the
plan said.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from common import document, print_document, ratio_of_rates
from PIL import Image

from orchestrator.data.index import index_dataset
from orchestrator.data.prepare.demo import write_demo
from orchestrator.plan.cluster import ClusterShape, installed_loader, local_shape
from orchestrator.plan.estimate import with_measured_rate
from orchestrator.plan.plan import Plan
from orchestrator.plan.rates import MeasuredRate
from orchestrator.plan.resolve import DatasetFacts, resolve
from orchestrator.plan.versions import installed_versions
from orchestrator.recipe.load import load_recipe

T = TypeVar("T")

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A short run: a recipe made small enough to be trained to its end."""

    recipe: str
    overrides: tuple[str, ...]
    write_data: Callable[[Path], object]


def write_noise(root: Path) -> None:
    """A few images of ImageNet's kind: 500 x 375 pixels, two classes; what is on them doesn't matter to time."""
    generator = np.random.default_rng(0)
    for split, num_images in (("train", 64), ("val", 16)):
        for number in range(num_images):
            folder = root / split / ("even" if number % 2 == 0 else "odd")
            folder.mkdir(parents=True, exist_ok=True)
            coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.jpg")


CASES = {
    "densenet_demo": Case(recipe="demo", overrides=("train.epochs=2",), write_data=write_demo),
    "densenet121": Case(
        recipe="densenet121",
        overrides=("train.epochs=2", "train.global_batch_size=16", "train.batch_norm_groups=1"),
        write_data=write_noise,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a run took."""

    total_s: float
    memory_bytes: int
    """What the peak of memory grew by since before the network was built."""


def plan_case(case: Case, root: Path, cluster: ClusterShape) -> Plan:
    """The plan of a case on one worker, which saves nothing."""
    overrides = (*case.overrides, "cluster.workers=1", f"data.root={root}")
    dataset = index_dataset(root)
    facts = DatasetFacts(
        num_train_images=dataset.train.num_samples,
        num_val_images=dataset.val.num_samples,
        num_classes=len(dataset.classes),
        fingerprint=dataset.fingerprint,
    )
    plan = resolve(
        load_recipe(case.recipe, overrides),
        cluster=cluster,
        dataset=facts,
        versions=installed_versions(),
        loader_available=installed_loader(),
    )
    return replace(plan, execution=replace(plan.execution, checkpoint_steps=(), checkpoint_every_minutes=None))


def train_measured(plan: Plan, root: Path) -> Measurement:
    """Train to the end in this process, which must have done nothing before."""
    from unsaved import UnsavedReporter

    from orchestrator.train.loop import train
    from orchestrator.train.world import World

    dataset, world = index_dataset(root), World.single(plan.placement.device)
    before_bytes, started_at = peak_bytes(), perf_counter()
    train(plan, dataset, world, UnsavedReporter())
    total_s = perf_counter() - started_at
    return Measurement(total_s=total_s, memory_bytes=peak_bytes() - before_bytes)


def peak_bytes() -> int:
    """The most memory that this process has held so far: of its GPU if it has one, otherwise of the host."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def probe(plan: Plan) -> MeasuredRate:
    """The rate that `dnctl plan --probe` would find."""
    from orchestrator.train.probe import measure_rate

    return measure_rate(plan)


def in_fresh_process(function: Callable[..., T], *arguments: object) -> T:
    """What the function returns in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One figure of a plan, estimated and measured as often."""

    name: str
    unit: str
    estimated: Sequence[float]
    measured: Sequence[float]

    def row(self) -> dict[str, Any]:
        """The medians, and the least and most that was measured."""
        return {
            "estimate": self.name,
            "unit": self.unit,
            "estimated": statistics.median(self.estimated),
            "measured": statistics.median(self.measured),
            "lowest": min(self.measured),
            "highest": max(self.measured),
        }


def compare(name: str, case: Case, *, repeats: int) -> Iterator[Comparison]:
    """Each estimate of a case against its runs; a probe is made beside each run."""
    cluster = local_shape()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        root.mkdir()
        case.write_data(root)
        plan = plan_case(case, root, cluster)
        runs, probed_s = [], []
        for _ in range(repeats):
            runs.append(in_fresh_process(train_measured, plan, root))
            probed_s.append(planned_s(with_measured_rate(plan, in_fresh_process(probe, plan), cluster)))
    measured_s = [run.total_s for run in runs]
    yield Comparison(name=f"{name}/time/probe", unit="s", estimated=probed_s, measured=measured_s)
    if plan.estimate.time is not None:
        table_s = [planned_s(plan)] * repeats
        yield Comparison(name=f"{name}/time/table", unit="s", estimated=table_s, measured=measured_s)
    if plan.estimate.memory is not None:
        estimated_mib = [plan.estimate.memory.total_bytes / MIB] * repeats
        measured_mib = [run.memory_bytes / MIB for run in runs]
        yield Comparison(name=f"{name}/memory", unit="MiB", estimated=estimated_mib, measured=measured_mib)


def planned_s(plan: Plan) -> float:
    """Seconds that the plan gives the whole run."""
    assert plan.estimate.time is not None
    return plan.estimate.time.total_h * 3600


def main() -> None:
    """Run the cases that were asked for and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=3, help="real runs of each case")
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=tuple(CASES), metavar="NAME")
    arguments = parser.parse_args()
    found = [one for name in arguments.cases for one in compare(name, CASES[name], repeats=arguments.repeats)]
    ratios = {one.name: ratio_of_rates(one.estimated, one.measured) for one in found}
    print_document(document(rows=[one.row() for one in found], ratios=ratios), as_json=arguments.json)


if __name__ == "__main__":
    main()
