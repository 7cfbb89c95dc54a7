"""What does dnctl cost? Steps and starts of `dnctl launch` against a bare DDP loop (bare_ddp.py, bare_ray.py).

    python benchmarks/overhead.py [--json] [--repeats 3] [--model densenet121] [--image-size 224] …

- `images_per_s/torchrun`: the rate of long steps, from the first logged step to the last one of an epoch, against the
  loop under torchrun. The goal is 0.99. Both train reference blocks; `--block auto` lets dnctl take its faster ones.
- `images_per_s/loop_alone`: the same against dnctl's own loop under torchrun (loop_alone.py): what Ray and the driver
  take of the machine.
- `first_step_cold/…`: from typing the command to the first optimiser step done, of a small network, where no cluster is
  up: dnctl and the Ray Train script start one, torchrun needs none.
- `first_step_warm/…`: the same where dnctl's cluster of this machine is up. The Ray Train script uses that one, too.

All read the same images, which are made for the occasion, with the same plan. Rounds are interleaved: each ratio
compares runs of one round. dnctl's cluster is down while torchrun is measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import time
from types import MappingProxyType
from typing import Any

import numpy as np
from common import Ratio, document, print_document, ratio_of_costs, ratio_of_rates
from PIL import Image

from orchestrator.engine import local_cluster
from orchestrator.run.directory import RunDirectory
from orchestrator.run.segments import read_segments

BARE_DDP, BARE_RAY, LOOP_ALONE = (
    str(Path(__file__).with_name(name)) for name in ("bare_ddp.py", "bare_ray.py", "loop_alone.py")
)
SMALL_MODEL, SMALL_IMAGE_SIZE, SMALL_NUM_STEPS = "densenet_demo", 32, 2

StepTimes = Mapping[int, float]
"""When the n-th step was done, in seconds since 1970; 0 is when the command was typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A place with images, a storage and a cluster of its own, and the commands that are compared there."""

    folder: Path
    recipe: Sequence[str]
    """The recipe's name and overrides, as arguments of `dnctl launch`."""
    environment: Mapping[str, str]
    num_workers: int
    started: list[str] = field(default_factory=list)
    """Names of what was started so far."""

    @property
    def images(self) -> str:
        """The data set."""
        return str(self.folder / "images")

    def write_plan(self) -> Path:
        """The plan that all of them carry out."""
        path = self.folder / "plan.json"
        if not path.exists():
            command = [*_dnctl("launch"), *self.recipe, "--dry-run", "--json"]
            path.write_text(self._run(command, stdout=subprocess.PIPE).stdout)
        return path

    def dnctl(self) -> StepTimes:
        """A whole run under `dnctl launch`, on its cluster, which is started if need be."""
        name = self._name()
        typed_at = self._note("dnctl launch")
        self._run([*_dnctl("launch"), *self.recipe, "--name", name])
        attempt = RunDirectory(self.folder / "runs" / name).attempt(1)
        return {0: typed_at} | {row["step"]: row["time"] for row in read_segments(attempt.path, "metrics")}

    def torchrun(self, script: str = BARE_DDP) -> StepTimes:
        """A loop under torchrun; the bare one if none is named."""
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        return self._bare([*command, str(self.num_workers), script])

    def ray_train_alone(self) -> StepTimes:
        """The bare loop under Ray Train, on a cluster that its script starts."""
        return self._bare([sys.executable, BARE_RAY])

    def ray_train_beside(self) -> StepTimes:
        """The bare loop under Ray Train, on dnctl's cluster, which is up."""
        cluster = local_cluster.find()
        assert cluster is not None
        token = local_cluster.token_environment(cluster.token_path)
        return self._bare([sys.executable, BARE_RAY], "--address", cluster.gcs_address, environment=token)

    def _bare(
        self, command: Sequence[str], *options: str, environment: Mapping[str, str] = MappingProxyType({})
    ) -> StepTimes:
        plan, times = self.write_plan(), self.folder / f"{self._name()}.json"
        typed_at = self._note(Path(command[-1]).name)
        self._run([*command, str(plan), self.images, str(times), *options], environment=environment)
        return {0: typed_at} | {int(step): at for step, at in json.loads(times.read_text()).items()}

    def end_cluster(self) -> None:
        """End dnctl's cluster, if it is up."""
        self._run([*_dnctl("cluster"), "down"])

    def _note(self, what: str) -> float:
        """Say on stderr what is measured now; returns the time."""
        print(f"{what} …", file=sys.stderr)
        return time()

    def _name(self) -> str:
        self.started.append(f"run-{len(self.started)}")
        return self.started[-1]

    def _run(
        self,
        command: Sequence[str],
        *,
        stdout: int = subprocess.DEVNULL,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.CompletedProcess[str]:
        whole = {**self.environment, **environment}
        done = subprocess.run(command, env=whole, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} exited with {done.returncode}:\n{done.stderr[-4000:]}")
        return done


def _dnctl(command: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", command]


@contextmanager
def bench(
    *,
    model: str,
    image_size: int,
    num_images: int,
    batch: int,
    workers: int,
    log_every: int,
    precision: str = "fp32",
    block: str = "reference",
) -> Iterator[Bench]:
    """A bench for one network; its cluster is ended and all is removed at the end. batch: of all workers together."""
    with tempfile.TemporaryDirectory(prefix="bench") as place:
        folder = Path(place)
        write_images(folder / "images", num_images)
        settings = {
            "data.root": folder / "images",
            "data.num_threads": 1,
            "data.train.image_size": image_size,
            "model.name": model,
            "model.block": block,
            "train.epochs": 1,
            "train.global_batch_size": batch,
            "train.batch_norm_groups": workers,
            "train.precision": precision,
            "train.log_every_steps": log_every,
            "checkpoint.every_minutes": "null",
            "cluster.workers": workers,
        }
        os.environ["DNCTL_CLUSTER_DIR"] = str(folder / "c")
        made = Bench(
            folder=folder,
            recipe=["densenet121", *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))],
            environment={**os.environ, "DNCTL_STORAGE": str(folder / "runs"), "DNCTL_CLUSTER": "local"},
            num_workers=workers,
        )
        try:
            yield made
        finally:
            made.end_cluster()


def write_images(root: Path, num_images: int) -> None:
    """JPEGs of ImageNet's size in two classes; what is on them doesn't matter to time. A few for validation."""
    generator = np.random.default_rng(0)
    for split, number_of in (("train", num_images), ("val", 4)):
        for number in range(number_of):
            path = root / split / ("even" if number % 2 == 0 else "odd") / f"{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = generator.integers(0, 256, (120, 160, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One question: what was measured, round by round, of ours and of each peer."""

    name: str
    unit: str
    ours: Sequence[float]
    peers: Mapping[str, Sequence[float]]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Ours and each peer's median, with the least and the most."""
        for name, measured in {"dnctl": self.ours, **self.peers}.items():
            yield {
                "measured": self.name,
                "of": name,
                "unit": self.unit,
                "median": median(measured),
                "lowest": min(measured),
                "highest": max(measured),
            }

    def ratios(self) -> dict[str, Ratio]:
        """Ours against each peer."""
        ratio = ratio_of_rates if self.unit == "images/s" else ratio_of_costs
        return {f"{self.name}/{peer}": ratio(self.ours, measured) for peer, measured in self.peers.items()}


def _bench_of(
    arguments: argparse.Namespace, *, model: str, image_size: int, num_images: int
) -> AbstractContextManager[Bench]:
    return bench(
        model=model,
        image_size=image_size,
        num_images=num_images,
        batch=arguments.batch,
        workers=arguments.workers,
        log_every=arguments.log_every,
        precision=arguments.precision,
        block=arguments.block,
    )


def compare_rates(arguments: argparse.Namespace) -> Comparison:
    """Images/s of long steps."""
    ours, torchrun, alone = [], [], []
    num_images = arguments.batch * arguments.steps
    with _bench_of(arguments, model=arguments.model, image_size=arguments.image_size, num_images=num_images) as place:
        for _ in range(arguments.repeats):
            torchrun.append(images_per_s(place.torchrun(), arguments))
            alone.append(images_per_s(place.torchrun(LOOP_ALONE), arguments))
            ours.append(images_per_s(place.dnctl(), arguments))
            place.end_cluster()
    peers = {"torchrun": torchrun, "loop_alone": alone}
    return Comparison(name="images_per_s", unit="images/s", ours=ours, peers=peers)


def images_per_s(times: StepTimes, arguments: argparse.Namespace) -> float:
    """The rate between the first step that every program logs and the last."""
    first, last = arguments.log_every, arguments.steps
    return (last - first) * arguments.batch / (times[last] - times[first])


def compare_starts(arguments: argparse.Namespace) -> Iterator[Comparison]:
    """Seconds until the first step of a small network is done."""
    measured: dict[str, list[float]] = {}
    num_images = arguments.batch * SMALL_NUM_STEPS

    def note(name: str, times: StepTimes) -> None:
        measured.setdefault(name, []).append(times[1] - times[0])

    with _bench_of(arguments, model=SMALL_MODEL, image_size=SMALL_IMAGE_SIZE, num_images=num_images) as place:
        place.torchrun()  # the first one reads libraries from the disk
        for _ in range(arguments.repeats):
            note("torchrun", place.torchrun())
            note("ray cold", place.ray_train_alone())
            note("dnctl cold", place.dnctl())
            note("ray warm", place.ray_train_beside())
            note("dnctl warm", place.dnctl())
            place.end_cluster()
    for state in ("cold", "warm"):
        peers = {"torchrun": measured["torchrun"], "ray_train": measured[f"ray {state}"]}
        yield Comparison(name=f"first_step_{state}", unit="s", ours=measured[f"dnctl {state}"], peers=peers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--only", choices=("steps", "starts"), help="answer one of the two questions")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved rounds")
    parser.add_argument("--model", default="densenet121", help="the network whose steps are measured")
    parser.add_argument(
        "--block",
        choices=("reference", "auto"),
        default="reference",
        help="of dnctl's network; torchrun's is reference",
    )
    parser.add_argument("--image-size", type=int, default=224, help="pixels a side that it sees")
    parser.add_argument("--batch", type=int, default=16, help="images of a step, on all workers together")
    parser.add_argument("--steps", type=int, default=20, help="steps of a run, a multiple of --log-every")
    parser.add_argument("--log-every", type=int, default=4, help="steps between two logged ones; those before warm up")
    parser.add_argument("--workers", type=int, default=2, help="workers, each with one batch-norm group")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of both")
    arguments = parser.parse_args()
    if arguments.steps % arguments.log_every or arguments.steps == arguments.log_every:
        parser.error("--steps must be a multiple of --log-every, and more than one")
    found = []
    if arguments.only in (None, "steps"):
        found.append(compare_rates(arguments))
    if arguments.only in (None, "starts"):
        found.extend(compare_starts(arguments))
    rows = [row for comparison in found for row in comparison.rows()]
    ratios = {name: ratio for comparison in found for name, ratio in comparison.ratios().items()}
    print_document(document(rows=rows, ratios=ratios), as_json=arguments.json)


if __name__ == "__main__":
    main()
