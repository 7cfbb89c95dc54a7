"""Does a run take as long as the forecast says?

    python benchmarks/forecast.py [--json] [--runs 3] [--mtbf-s 40] [--epochs 8] [--folder FOLDER] [--without-ray]

A run of the demo on this machine is killed once, and what it took of a step, a checkpoint, a start and a restart is
measured. From that the wall time of the same run under failures is forecast, and then runs are started whose worker is
killed (SIGKILL) at times drawn from the same exponential law, also while it starts. Each starts a cluster of its own;
`--without-ray` starts the same loop as a bare process instead, and again as soon as it is killed.
`forecast/mean` is the forecast mean over the wall time of each run. With a folder given, the runs that lie there count,
too, so that a long measurement can be made in parts.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import monotonic, time
from typing import Any

from common import document, print_document, ratio_of_rates

from orchestrator.data.index import index_dataset
from orchestrator.engine.planning import load_plan, make_plan, write_plan, write_recipe
from orchestrator.plan.cluster import local_shape
from orchestrator.plan.forecast import Costs, simulate, spread
from orchestrator.plan.forecast_inputs import Measured, basis_of, nodes_of
from orchestrator.recipe.load import load_recipe
from orchestrator.run.directory import RunDirectory
from orchestrator.run.measured import measure
from orchestrator.run.progress import read_progress
from orchestrator.run.state import State, write_state
from orchestrator.run.status import read_status

DNCTL = Path(sys.executable).with_name("dnctl")
SAVE_EVERY_MINUTES = 0.1
CALIBRATION = "calibration"
NUM_HISTORIES = 20_000
POLL_S = 0.05


def workers_of(cluster: Path) -> Iterator[int]:
    """The processes that train on a cluster of ours, by the environment of those that started them.

    Their own is overwritten by the title that Ray gives them.
    """
    mark = f"DNCTL_CLUSTER_DIR={cluster}".encode()
    for process in Path("/proc").iterdir():
        try:
            is_worker = process.name.isdigit() and b"TrainWorker" in (process / "cmdline").read_bytes()
            if is_worker and any(mark in environment for environment in _environments(int(process.name))):
                yield int(process.name)
        except OSError:
            continue  # it has just ended


def _environments(process_id: int) -> Iterator[list[bytes]]:
    """Of the processes that a process comes from. Raises OSError if one has ended."""
    while process_id > 1:
        folder = Path("/proc") / str(process_id)
        process_id = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        yield (folder / "environ").read_bytes().split(b"\0")


class Killer:
    """Kills the worker of a run after given waits; a kill that is due while there is none comes when there is."""

    def __init__(self, find_workers: Callable[[], Iterable[int]], waits: Iterator[float]) -> None:
        """find_workers: process ids. waits: seconds to wait before each kill."""
        self._find_workers = find_workers
        self._waits = waits
        self._over = Event()
        self.num_kills = 0
        self._thread = Thread(target=self._kill)
        self._thread.start()

    def _kill(self) -> None:
        for wait_s in self._waits:
            if self._over.wait(wait_s):
                return
            while not (workers := list(self._find_workers())):
                if self._over.wait(POLL_S):
                    return
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            self.num_kills += 1

    def close(self) -> None:
        """Kill no more."""
        self._over.set()
        self._thread.join()


@contextmanager
def _cluster() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="forecast-", dir="/tmp") as folder:
        try:
            yield Path(folder)
        finally:
            subprocess.run([DNCTL, "cluster", "down"], env=_environment(Path(folder)), capture_output=True, check=False)


def _environment(cluster: Path, storage: Path | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "DNCTL_CLUSTER")}
    return {**kept, "DNCTL_CLUSTER_DIR": str(cluster), **({"DNCTL_STORAGE": str(storage)} if storage else {})}


def train(folder: Path, name: str, *, epochs: int, waits: Iterator[float]) -> tuple[RunDirectory, int]:
    """A run to its end, on a cluster of its own, its worker killed after each of the waits."""
    run = RunDirectory(folder / "runs" / name)
    settings = (f"--set={setting}" for setting in settings_of(folder, epochs))
    command = [str(DNCTL), "launch", "demo", "--name", name, *settings]
    with _cluster() as cluster:
        process = subprocess.Popen(
            command, env=_environment(cluster, run.path.parent), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        killer = Killer(lambda: workers_of(cluster), waits)
        assert process.wait() == 0, f"see {run.path}"
        killer.close()
    return run, killer.num_kills


def train_without_ray(folder: Path, name: str, *, epochs: int, waits: Iterator[float]) -> tuple[RunDirectory, int]:
    """The same in a process of its own, which is started again at once when it was killed."""
    run = RunDirectory(folder / "runs" / name)
    run.create(now=time())
    recipe = load_recipe("demo", settings_of(folder, epochs))
    write_recipe(run, recipe)
    write_plan(run, make_plan(recipe, local_shape()))
    processes: list[subprocess.Popen[bytes]] = []
    killer = Killer(lambda: [process.pid for process in processes[-1:] if process.poll() is None], waits)
    submitted_at: float | None = time()
    while True:
        attempt = run.claim_attempt("benchmark", submitted_at=submitted_at)
        processes.append(subprocess.Popen([sys.executable, __file__, "--train", str(run.path), str(attempt.number)]))
        if processes[-1].wait() == 0:
            break
        submitted_at = None
    now = time()
    killer.close()
    record = replace(run.read_state(), state=State.SUCCEEDED, attempt=attempt.number, updated_at=now, finished_at=now)
    write_state(run.state, record)
    return run, killer.num_kills


def train_attempt(run: RunDirectory, attempt: int) -> None:
    """What that process does."""
    from orchestrator.train.loop import train
    from orchestrator.train.reporter import RunReporter
    from orchestrator.train.world import World

    plan = load_plan(run)
    assert plan is not None
    reporter = RunReporter(run, attempt=attempt, keep_last=2, keep_best=0)
    train(plan, index_dataset(str(load_recipe(run.recipe).data.root)), World.single(), reporter)
    reporter.close()


def settings_of(folder: Path, epochs: int) -> list[str]:
    """What is changed of the demo."""
    return [
        f"data.root={folder / 'digits'}",
        f"train.epochs={epochs}",
        "train.log_every_steps=1",
        "cluster.workers=1",
        "cluster.max_failures=1000",
        f"checkpoint.every_minutes={SAVE_EVERY_MINUTES}",
    ]


def kill_once(run: RunDirectory) -> Iterator[float]:
    """One wait, until half of the steps are done."""
    while True:
        progress = read_progress(run.attempt(1).progress)
        if progress is not None and progress.step > progress.num_steps / 2:
            yield 0.0
            return
        Event().wait(POLL_S)


def exponential(mtbf_s: float, *, seed: int) -> Iterator[float]:
    """Waits between failures."""
    draw = Random(seed)
    while True:
        yield draw.expovariate(1 / mtbf_s)


def wall_s(run: RunDirectory) -> float | None:
    """From a run's submission to its end; None if it hasn't succeeded."""
    status = read_status(run, now=time())
    finished_at = status.record.finished_at
    return finished_at - status.record.created_at if status.state is State.SUCCEEDED and finished_at else None


def finished(folder: Path) -> dict[str, float]:
    """Wall times of the runs that lie in a folder, by name."""
    runs = folder / "runs"
    found = {path.name: wall_s(RunDirectory(path)) for path in sorted(runs.iterdir())} if runs.is_dir() else {}
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mtbf-s", type=float, default=40.0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train is not None:
        train_attempt(RunDirectory(Path(options.train[0])), int(options.train[1]))
        return
    run_it = train_without_ray if options.without_ray else train
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        if not (folder / "digits").is_dir():
            subprocess.run([DNCTL, "data", "demo", str(folder / "digits")], check=True, stdout=subprocess.DEVNULL)
        if CALIBRATION not in finished(folder):
            calibration = RunDirectory(folder / "runs" / CALIBRATION)
            run_it(folder, CALIBRATION, epochs=options.epochs, waits=kill_once(calibration))
        for _ in range(options.runs):
            number = len(finished(folder))
            began_at = monotonic()
            waits = exponential(options.mtbf_s, seed=number)
            _, num_kills = run_it(folder, f"run-{number}", epochs=options.epochs, waits=waits)
            print(f"run {number}: {num_kills} kills, {monotonic() - began_at:.0f} s", file=sys.stderr)
        print_document(compared(folder, options.mtbf_s), as_json=options.json)


def compared(folder: Path, mtbf_s: float) -> dict[str, Any]:
    """The forecast from the calibration, and what the other runs in the folder took."""
    calibration = RunDirectory(folder / "runs" / CALIBRATION)
    plan = load_plan(calibration)
    assert plan is not None
    measured: Measured = measure(calibration, plan, numerics=plan.numerics)
    costs: Costs = basis_of(plan, measured).costs
    nodes = nodes_of(plan, count=1, mtbf_s=mtbf_s, notice_s=0.0, replacement_s=0.0)
    histories = simulate(costs, nodes, interval_s=60 * SAVE_EVERY_MINUTES, num_histories=NUM_HISTORIES)
    predicted = spread(histories.wall_s)
    times = {name: seconds for name, seconds in finished(folder).items() if name != CALIBRATION}
    rows: list[dict[str, Any]] = [
        {
            "step_s": costs.step_s,
            "work_s": costs.work_s,
            "hold_s": costs.hold_s,
            "write_s": costs.write_s,
            "start_s": costs.start_s,
            "restart_s": costs.restart_s,
            "mtbf_s": mtbf_s,
        },
        {
            "forecast_p10_s": predicted.p10,
            "forecast_p50_s": predicted.p50,
            "forecast_p90_s": predicted.p90,
            "forecast_mean_s": predicted.mean,
            "forecast_failures": float(histories.num_failures.mean()),
        },
    ]
    for name, seconds in times.items():
        attempts = len(RunDirectory(folder / "runs" / name).attempts())
        below = float((histories.wall_s <= seconds).mean())
        rows.append({"run": name, "wall_s": seconds, "restarts": attempts - 1, "histories_that_are_faster": below})
    ratio = ratio_of_rates([predicted.mean] * len(times), list(times.values()))
    return document(rows=rows, ratios={"forecast/mean": ratio})


if __name__ == "__main__":
    main()
