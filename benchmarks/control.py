"""What does watching cost, and how soon does one see what happens?

    python benchmarks/control.py [--json] [--only PART] [--rounds 3] [--pairs 80] [--window-s 3] [--events 20] …

- `first_step_cold/ray_job_submit`, `first_step_warm/…`: from typing the command to the first step done, against
  `ray job submit` of a minimal Ray Train script (first_step.py). The goal is above 0.91.

- `watch/rate`: steps a second of a training while `dnctl watch` shows it in a pseudo-terminal of 80x24, over the rate
  of the same training without, in windows of one run that take turns. Training has one thread. Both share this
  machine's cores, which they needn't: one can watch from elsewhere. The goal is above 0.995.
  What `watch` itself computes, in seconds of a core a second, is measured, too.
- `event_to_screen_s`: from an event's append in the run to its text on the screen. The goal is below 2.
- looking at a storage of many runs, and at a run of many workers, first and again, and what the latter costs a step.
"""

import argparse
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, median, stdev
from threading import Thread
from time import perf_counter, sleep, time

import numpy as np
from cli import DNCTL, FIGURES, seconds, write_runs
from common import Ratio, document, print_document
from first_step import compare_first_steps

from orchestrator.cli.render_watch import render_run
from orchestrator.monitor.overview import OverviewReader
from orchestrator.monitor.run_reader import RunReader
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.lease import Lease, LeaseKeeper
from orchestrator.run.progress import write_progress
from orchestrator.run.segments import SegmentWriter, read_segments
from orchestrator.run.state import State, write_state

SETTLE_S = 1.5
"""After `watch` began, so long isn't counted."""
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


class Watched:
    """`dnctl watch` in a pseudo-terminal, and when which bytes came out of it."""

    def __init__(self, run: RunDirectory) -> None:
        self._seen = bytearray()
        parent, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "DNCTL_STORAGE": str(run.path.parent), "TERM": "xterm-256color"}
        command = [DNCTL, "watch", run.name]
        self._process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True
        )
        os.close(child)
        self._terminal = parent
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self._seen += os.read(self._terminal, 65536)
            except OSError:
                return

    def shows(self, text: str) -> bool:
        """Whether a text was on the screen."""
        return text.encode() in ESCAPES.sub(b"", bytes(self._seen))

    def wait_for(self, text: str) -> None:
        """Return when a text is on the screen."""
        while not self.shows(text):
            assert self._process.poll() is None, bytes(self._seen[-2000:])
            sleep(0.005)

    def cpu_s(self) -> float:
        """Seconds of CPU that it has used, all threads together."""
        user, system = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self._process.send_signal(number)

    def forget(self) -> None:
        """Let go of what was seen."""
        self._seen.clear()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


def train_for_good(run: RunDirectory, root: str) -> None:
    """Train the demo network in this process, a row of metrics a step, until killed."""
    from orchestrator.data.index import index_dataset
    from orchestrator.engine.planning import make_plan, write_plan, write_recipe
    from orchestrator.plan.cluster import ClusterShape
    from orchestrator.recipe.load import load_recipe
    from orchestrator.train.loop import train
    from orchestrator.train.reporter import RunReporter
    from orchestrator.train.world import World

    settings = [f"data.root={root}", "cluster.workers=1", "cluster.cpus_per_worker=1", "data.num_threads=1"]
    settings += [
        "train.epochs=1000",
        "train.log_every_steps=1",
        "train.global_batch_size=8",
        "eval.every_epochs=1000",
        "checkpoint.every_epochs=1000",
    ]
    recipe = load_recipe("demo", [*settings, "train.optimizer.lr=0.001"])
    plan = make_plan(recipe, ClusterShape(num_cpus=1))
    write_recipe(run, recipe)
    write_plan(run, plan)
    attempt = run.claim_attempt("benchmark")
    keeper = LeaseKeeper(run.lease, holder="benchmark", newest_attempt=run.newest_attempt)
    write_state(run.state, replace(run.read_state(), state=State.RUNNING, reason="training", attempt=attempt.number))
    train(plan, index_dataset(root), World.single(), RunReporter(run, attempt=attempt.number, keep_last=1, keep_best=0))
    keeper.close()


@contextmanager
def training(folder: Path) -> Iterator[RunDirectory]:
    """A run that trains in another process; yields when it does."""
    folder.mkdir(exist_ok=True)
    images = folder / "digits"
    subprocess.run([DNCTL, "data", "demo", str(images)], check=True, stdout=subprocess.DEVNULL)
    run = RunDirectory(folder / "training" / "run")
    run.create(now=time())
    process = subprocess.Popen([sys.executable, __file__, "--train", str(run.path), str(images)])
    try:
        while not list(run.path.glob("attempts/1/metrics-*")):
            assert process.poll() is None
            sleep(0.1)
        sleep(10)  # for the rate to settle
        yield run
    finally:
        process.kill()
        process.wait()


def cost_of_watching(folder: Path, *, num_pairs: int, window_s: float) -> tuple[Ratio, dict[str, object]]:
    """The rate of training while it is watched over that of the window beside it without.

    `watch` stands still in the windows without. They are short: a machine's speed wanders.
    """
    windows: list[tuple[float, float, bool]] = []
    with training(folder) as run:
        watched = Watched(run)
        watched.wait_for("images/s")
        sleep(SETTLE_S)
        cpu_before_s = watched.cpu_s()
        for number in range(2 * num_pairs):
            is_watched = number % 4 in (1, 2)  # off, on, on, off: a drift cancels out
            watched.send(signal.SIGCONT if is_watched else signal.SIGSTOP)
            began_at = time()
            sleep(window_s)
            windows.append((began_at, time(), is_watched))
        cpu_s = watched.cpu_s() - cpu_before_s
        watched.close()
        steps = np.array([row["time"] for row in read_segments(run.attempt(1).path, "metrics")])
    rates = [(_rate(steps, begin, end), is_watched) for begin, end, is_watched in windows]
    pairs = [rates[2 * pair : 2 * pair + 2] for pair in range(num_pairs)]
    ratios = [next(rate for rate, on in pair if on) / next(rate for rate, on in pair if not on) for pair in pairs]
    row = {
        "what": "steps/s while watched over unwatched",
        "mean": mean(ratios),
        "standard_error": stdev(ratios) / num_pairs**0.5,
        "steps_per_s": median(rate for rate, on in rates if not on),
        "pairs": num_pairs,
        "cpu_of_watch_over_time": cpu_s / (num_pairs * window_s),
    }
    return Ratio(median=median(ratios), low=min(ratios), high=max(ratios)), row


def _rate(steps: np.ndarray, begin: float, end: float) -> float:
    """Steps a second between the first and the last step of a window."""
    inside = steps[(steps >= begin) & (steps < end)]
    return float((len(inside) - 1) / (inside[-1] - inside[0]))


def event_to_screen(folder: Path, num_events: int) -> dict[str, object]:
    """Seconds from appending an event to its text on the screen, at moments that have nothing to do with either."""
    run = _running(folder / "events", "run")
    events = SegmentWriter(run.attempt(1).path, "events")
    watched, delays = Watched(run), []
    watched.wait_for("loss")
    pauses = np.random.default_rng(0).uniform(0.5, 1.5, num_events)
    for number, pause in enumerate(pauses):
        sleep(pause)
        watched.forget()
        appended_at = perf_counter()
        events.append({"time": time(), "event": f"token{number:04d}"})
        watched.wait_for(f"token{number:04d}")
        delays.append(perf_counter() - appended_at)
    watched.close()
    events.close()
    return {"what": "event to screen, s", "median": median(delays), "highest": max(delays), "events": num_events}


def _running(storage: Path, name: str) -> RunDirectory:
    """A run that looks alive for an hour."""
    run = RunDirectory(storage / name)
    run.create(now=time())
    write_progress(run.claim_attempt("benchmark").progress, FIGURES)
    write_state(run.state, replace(run.read_state(), state=State.RUNNING, reason="training", attempt=1))
    lease = Lease(holder="benchmark", host="here", process_id=1, attempt=1, renewed_at=time(), expires_at=time() + 3600)
    files.write_json(run.lease, asdict(lease))
    return run


def looking_at_many_runs(folder: Path, num_runs: int) -> list[dict[str, object]]:
    """`watch`'s list of a storage of many finished runs: the first look, and the next ones."""
    write_runs(folder / "many", num_runs)
    reader = OverviewReader(folder / "many")
    first_s = _seconds(reader.read)
    again_s = [_seconds(reader.read) for _ in range(5)]
    commands = {
        "list": [DNCTL, "list"],
        "status last": [DNCTL, "status", "last"],
        "watch --once": [DNCTL, "watch", "--once"],
    }
    environment = {**os.environ, "DNCTL_STORAGE": str(folder / "many")}
    rows: list[dict[str, object]] = [
        {"what": f"look at {num_runs} runs, s", "first": first_s, "again": median(again_s)},
    ]
    for name, command in commands.items():
        times = [seconds(command, environment) for _ in range(5)]
        rows.append({"what": f"dnctl {name} with {num_runs} runs, s", "median": median(times), "highest": max(times)})
    return rows


def looking_at_many_workers(folder: Path, num_ranks: int) -> dict[str, object]:
    """What the figures of many ranks cost the first one a step, and a viewer a look."""
    from orchestrator.run.workers import Workers, write_workers
    from orchestrator.train.stragglers import StepTimes, StragglerWatch

    watch = StragglerWatch([f"node-{rank // 8}" for rank in range(num_ranks)], images_per_rank=[8] * num_ranks)
    generator = np.random.default_rng(0)
    times = [
        StepTimes(
            data_s=generator.lognormal(-5, 0.05, num_ranks),
            compute_s=generator.lognormal(-2, 0.05, num_ranks),
            communication_s=generator.lognormal(-4, 0.05, num_ranks),
        )
        for _ in range(50)
    ]
    began_at = perf_counter()
    for step in range(500):
        watch.add(step, times[step % 50])
    step_s = (perf_counter() - began_at) / 500
    run = _running(folder / "workers", "run")
    medians, ranks = watch.medians(), range(num_ranks)
    workers = Workers(
        step=1, at=time(), stragglers=watch.stragglers,
        host=tuple(f"node-{rank // 8}" for rank in ranks), process_id=tuple(ranks),
        device=tuple(f"cuda:{rank % 8}" for rank in ranks),
        data_s=tuple(medians.data_s.tolist()), compute_s=tuple(medians.compute_s.tolist()),
        communication_s=tuple(medians.communication_s.tolist()),
        process_memory_bytes=(4 << 30,) * num_ranks, host_memory_used_bytes=(90 << 30,) * num_ranks,
        host_memory_bytes=(512 << 30,) * num_ranks, gpu_memory_used_bytes=(40 << 30,) * num_ranks,
        gpu_memory_bytes=(80 << 30,) * num_ranks, gpu_utilization_percent=(93.0,) * num_ranks,
    )  # fmt: skip
    write_workers(run.attempt(1).telemetry, workers)
    reader = RunReader(run)
    reader.read()
    look_s = median(_seconds(lambda: render_run(reader.read(), width=200, height=50)) for _ in range(10))
    size = run.attempt(1).telemetry.stat().st_size
    return {
        "what": f"{num_ranks} ranks",
        "first_rank_s_per_step": step_s,
        "file_bytes": size,
        "look_and_draw_s": look_s,
    }


def _seconds(function: Callable[[], object]) -> float:
    began_at = perf_counter()
    function()
    return perf_counter() - began_at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--only", choices=("looks", "watch", "starts"), help="one part")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of starts, interleaved with the peer's")
    parser.add_argument("--pairs", type=int, default=80, help="pairs of windows with and without watch")
    parser.add_argument("--window-s", type=float, default=3.0, help="length of a window")
    parser.add_argument("--events", type=int, default=20, help="events whose way to the screen is timed")
    parser.add_argument("--runs", type=int, default=1000, help="runs on the storage")
    parser.add_argument("--ranks", type=int, default=512, help="workers of the simulated run")
    parser.add_argument("--train", nargs=2, metavar=("RUN", "IMAGES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train_for_good(RunDirectory(Path(arguments.train[0])), arguments.train[1])
        return
    rows: list[dict[str, object]] = []
    ratios: dict[str, Ratio] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.only in (None, "looks"):
            rows += looking_at_many_runs(folder, arguments.runs)
            rows += [looking_at_many_workers(folder, arguments.ranks), event_to_screen(folder, arguments.events)]
        if arguments.only in (None, "watch"):
            ratios["watch/rate"], row = cost_of_watching(folder, num_pairs=arguments.pairs, window_s=arguments.window_s)
            rows.append(row)
    if arguments.only in (None, "starts"):
        starts, start_rows = compare_first_steps(arguments.rounds)
        rows, ratios = [*rows, *start_rows], {**ratios, **starts}
    print_document(document(rows=rows, ratios=ratios), as_json=arguments.json)


if __name__ == "__main__":
    main()
