"""What does a loss cost, and what do checkpoints? dnctl against a minimal Ray Train script that saves in its loop.

    python benchmarks/recovery.py [--json] [--only losses|checkpoints] [--repeats 1] [--steps 400]

- `back_after_worker_s`, `back_after_host_s`: from the death of a worker, or of a host with all its processes, to the
  first step done by the workers that follow, and the parts of it. Both save every 20 steps. The goal is a ratio of 1.
- `steps_lost`: of those that were saved, how many were done again. The goal is 0.
- `saved_after_notice_s`: from typing `ray drain-node` to the checkpoint with which the workers leave.
- `held_up`: the part of a run's steps that checkpoints held up, by the run's own account, and `step_s`: seconds a step
  with checkpoints every step, every 20 and none. The goal is 0.05 every 20 steps, and 0.001 at the default interval.

The hosts are network namespaces on this machine, with a Ray node each: root and iproute2 are needed. What Ray itself
takes to notice is set by its health checks, which are faster here than by default (tests/multihost/hosts.py).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic, sleep, time
from typing import Any

from common import Ratio, document, print_document, ratio_of_costs

from orchestrator.run.checkpoints import newest_step
from orchestrator.run.directory import RunDirectory
from orchestrator.run.progress import read_progress
from orchestrator.run.segments import read_segments
from tests.images import write_folder
from tests.multihost.conftest import Bed, made_bed
from tests.multihost.hosts import GCS_PORT

SCRIPT = str(Path(__file__).with_name("ray_checkpoints.py"))
BATCH, EVERY, STEP_OF_LOSS = 16, 20, 130
TIMEOUT_S = 180.0
STEPS_SAVED_EACH = 80
"""Of the peer, whose steps take two seconds with a checkpoint each."""
SHORTEST_INTERVAL_S = 30.0
"""The least that `checkpoint.every_minutes: auto` takes."""
SETTINGS = {
    "train.global_batch_size": BATCH,
    "train.batch_norm_groups": 2,
    "train.schedule.warmup_epochs": 0,
    "train.schedule.milestones": "[]",
    "train.log_every_steps": 1,
    "data.num_threads": 1,
    "checkpoint.every_minutes": "null",
    "cluster.cpus_per_worker": 1,
    "cluster.max_failures": 3,
}
"""The demo's network in steps of some hundredths of a second; checkpoints at the ends of epochs alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """How a run came back. Seconds since the loss; None what the peer doesn't tell."""

    noticed_s: float | None
    started_s: float
    """The workers that follow have begun."""
    read_s: float
    """They have read the checkpoint."""
    back_s: float
    """Their first step is done."""
    steps_lost: int
    """Done before the last checkpoint and again afterwards."""


@dataclass(slots=True, kw_only=True)
class Bench:
    """Hosts, and what runs on them."""

    bed: Bed
    folder: Path
    steps: int
    num_started: int = 0
    plans: dict[int, Path] = field(default_factory=dict)

    def images(self, steps_per_epoch: int) -> Path:
        """A data set whose epochs have so many steps."""
        root = self.folder / f"images-{steps_per_epoch}"
        if not root.exists():
            write_folder(root, num_train=BATCH * steps_per_epoch, num_val=8, num_classes=2)
        return root

    def launch(self, steps_per_epoch: int, *, steps: int) -> RunDirectory:
        """A run of ours that saves after each epoch."""
        name = self._name()
        _say(f"dnctl launch, a checkpoint every {steps_per_epoch} steps …")
        epochs = steps // steps_per_epoch
        settings = {**SETTINGS, "data.root": self.images(steps_per_epoch), "eval.every_epochs": epochs}
        settings |= {"cluster.workers": 2, "train.epochs": epochs}
        options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        answer = self.bed.dnctl("launch", "demo", "--name", name, "--detach", *options)
        if answer.returncode:
            raise SystemExit(answer.stderr)
        return RunDirectory(self.bed.storage / name)

    @contextmanager
    def script(self, plan: Path, images: Path, *, every: int) -> Iterator[Path]:
        """The peer, started; gives the file of its notes. It is ended at the end."""
        notes = self.folder / f"{self._name()}.jsonl"
        _say(f"Ray Train script, a checkpoint every {every or 'no'} steps …")
        head = self.bed.hosts.head
        command = ["ip", "netns", "exec", head.namespace, sys.executable, SCRIPT, str(plan), str(images), str(notes)]
        command += ["--every", str(every), "--interface", "eth0", "--address", f"{head.address}:{GCS_PORT}"]
        environment = {**os.environ, **self.bed.hosts.environment}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield notes
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            _free(self.bed)

    def _name(self) -> str:
        self.num_started += 1
        return f"bench-{self.num_started}"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _free(bed: Bed) -> None:
    """Wait until no worker is left, so that the next has the places."""
    deadline = monotonic() + 30
    while _ranks(bed) and monotonic() < deadline:
        sleep(0.2)


def _ranks(bed: Bed) -> list[int]:
    """Processes of workers, on all hosts but the head."""
    found = []
    for host in bed.hosts.hosts[1:]:
        for process_id in host.process_ids():
            try:
                words = Path(f"/proc/{process_id}/cmdline").read_bytes()
            except OSError:
                continue
            if b"RayTrainWorker" in words:
                found.append(process_id)
    return found


def _until(look: Callable[[], bool], what: str) -> None:
    deadline = monotonic() + TIMEOUT_S
    while not look():
        if monotonic() > deadline:
            raise SystemExit(f"{what} wasn't seen in {TIMEOUT_S:.0f} s")
        sleep(0.05)


def _step_of(run: RunDirectory) -> int:
    progress = read_progress(run.attempt(max(run.newest_attempt()[0], 1)).progress)
    return progress.step if progress is not None else 0


def _read_notes(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _strike(bed: Bed, kind: str) -> float:
    """Kill a worker, or its host; returns when."""
    victim = _ranks(bed)[-1]
    at = time()
    if kind == "worker":
        os.kill(victim, signal.SIGKILL)
    else:
        bed.hosts.kill(bed.hosts.host_of(victim))
    return at


def ours_comes_back(bench: Bench, kind: str) -> tuple[Back, RunDirectory]:
    """Strike a run of ours; it goes on afterwards."""
    run = bench.launch(EVERY, steps=bench.steps * 50)
    _until(lambda: _step_of(run) >= STEP_OF_LOSS, "a step of the run")
    struck_at = _strike(bench.bed, kind)
    saved = newest_step(run.checkpoints)
    _until(lambda: run.newest_attempt()[0] > 1 and _step_of(run) > 0, "the second attempt")
    sleep(2.5)
    first, second = run.attempt(1), run.attempt(2)
    (resumed,) = [row for row in read_segments(second.path, "events") if row["event"] == "training_resumes"]
    step = next(iter(read_segments(second.path, "metrics")))
    back = Back(
        noticed_s=first.worker_failures[0].stat().st_mtime - struck_at if first.worker_failures else None,
        started_s=second.worker_nodes.stat().st_mtime - struck_at,
        read_s=resumed["time"] - struck_at,
        back_s=step["time"] - struck_at,
        steps_lost=max(saved - resumed["step"], 0),
    )
    return back, run


def peer_comes_back(bench: Bench, plan: Path, images: Path, kind: str) -> Back:
    """Strike the peer."""
    with bench.script(plan, images, every=EVERY) as notes:
        _until(
            lambda: bool(_read_notes(notes)) and _read_notes(notes)[-1]["step"] >= STEP_OF_LOSS, "a step of the peer"
        )
        before = len(_read_notes(notes))
        struck_at = _strike(bench.bed, kind)
        _until(lambda: any(note["what"] == "step" for note in _since(notes, before)), "the peer's return")
        done, after = _read_notes(notes)[:before], _since(notes, before)
    saved = max(note["step"] for note in done[:-1] if note["what"] == "step" and note["step"] % EVERY == 0)
    at = {note["what"]: note for note in reversed(after)}
    return Back(
        noticed_s=None,
        started_s=at["started"]["time"] - struck_at,
        read_s=at["restored"]["time"] - struck_at,
        back_s=at["step"]["time"] - struck_at,
        steps_lost=saved - at["restored"]["step"],
    )


def _since(notes: Path, number: int) -> list[dict[str, Any]]:
    """The notes of the workers that follow."""
    later = _read_notes(notes)[number:]
    begins = [index for index, note in enumerate(later) if note["what"] == "started"]
    return later[begins[-1] :] if begins else []


def seconds_to_save_after_notice(bench: Bench, run: RunDirectory) -> tuple[float, float]:
    """From typing the drain to the checkpoint, and to the command's return. The run is stopped afterwards."""
    attempt = run.attempt(run.newest_attempt()[0])
    step = _step_of(run)
    _until(lambda: _step_of(run) > step + EVERY, "steps before the notice")
    host = bench.bed.hosts.host_of(_ranks(bench.bed)[0])
    typed_at = time()
    bench.bed.hosts.drain(host, deadline_s=60)
    returned_s = time() - typed_at
    paused: list[Mapping[str, Any]] = []

    def is_paused() -> bool:
        paused[:] = [row for row in read_segments(attempt.path, "events") if row["event"] == "paused"]
        return bool(paused)

    _until(is_paused, "the pause")
    bench.bed.hosts.reboot(host)
    return paused[0]["time"] - typed_at, returned_s


def stop(bench: Bench, run: RunDirectory) -> None:
    """End a run of ours."""
    bench.bed.dnctl("stop", run.name, "--now")
    _free(bench.bed)


def losses(bench: Bench, repeats: int) -> tuple[list[dict[str, Any]], dict[str, Ratio]]:
    """What comes of losses, ours and the peer's in turn."""
    rows, ratios = [], {}
    for kind in ("worker", "host"):
        ours, peers = [], []
        for _ in range(repeats):
            bench.bed.hosts.workers(3)
            back, run = ours_comes_back(bench, kind)
            ours.append(back)
            if kind == "worker":
                saved_s, returned_s = seconds_to_save_after_notice(bench, run)
                rows.append({"measured": "saved_after_notice_s", "seconds": saved_s, "of_which_command_s": returned_s})
            stop(bench, run)
            _restore_hosts(bench.bed)
            peers.append(peer_comes_back(bench, run.plan, bench.images(EVERY), kind))
            _restore_hosts(bench.bed)
        for name, backs in (("dnctl", ours), ("Ray Train script", peers)):
            rows.append(
                {
                    "measured": f"back_after_{kind}_s",
                    "of": name,
                    "noticed_s": _median(back.noticed_s for back in backs),
                    "workers_started_s": _median(back.started_s for back in backs),
                    "checkpoint_read_s": _median(back.read_s for back in backs),
                    "first_step_s": _median(back.back_s for back in backs),
                    "steps_lost": max(back.steps_lost for back in backs),
                }
            )
        ratios[f"back_after_{kind}_s/ray_train"] = ratio_of_costs(
            [back.back_s for back in ours], [back.back_s for back in peers]
        )
    return rows, ratios


def _median(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _restore_hosts(bed: Bed) -> None:
    for host in [host for host in bed.hosts.hosts if host.namespace in bed.hosts.gone]:
        bed.hosts.reboot(host)


def checkpoints(bench: Bench, repeats: int) -> tuple[list[dict[str, Any]], dict[str, Ratio]]:
    """What checkpoints cost the steps, ours and the peer's in turn."""
    ours: dict[int, list[float]] = {}
    peers: dict[int, list[float]] = {}
    held: dict[int, list[float]] = {}
    hold_s = []
    for _ in range(repeats):
        for every in (0, EVERY, 1):
            run = bench.launch(every or bench.steps, steps=bench.steps)
            bench.bed.wait(run)
            rows = list(read_segments(run.attempt(1).path, "metrics"))
            ours.setdefault(every, []).append(_seconds_a_step([(row["step"], row["time"]) for row in rows]))
            spent = _read_seconds(run)
            held.setdefault(every, []).append(spent["checkpoint"] / (spent["all"] - spent["evaluation"]))
            if every == EVERY:
                hold_s.append(spent["checkpoint"] / (bench.steps // EVERY))
            with bench.script(run.plan, bench.images(every or bench.steps), every=every) as notes:
                enough = bench.steps if every != 1 else min(bench.steps, STEPS_SAVED_EACH)
                _until(
                    lambda notes=notes, enough=enough: bool(seen := _read_notes(notes)) and seen[-1]["step"] >= enough,
                    "the peer's last step",
                )
                steps = [(note["step"], note["time"]) for note in _read_notes(notes) if note["what"] == "step"]
            peers.setdefault(every, []).append(_seconds_a_step(steps))
    rows_ = []
    for every, name in ((0, "none"), (EVERY, f"every {EVERY} steps"), (1, "every step")):
        rows_ += [
            {
                "measured": "step_s",
                "checkpoints": name,
                "of": "dnctl",
                "median": median(ours[every]),
                "held_up": round(median(held[every]), 5),
            },
            {"measured": "step_s", "checkpoints": name, "of": "Ray Train script", "median": median(peers[every])},
        ]
    rows_.append(
        {
            "measured": "held_up at the shortest default interval",
            "interval_s": SHORTEST_INTERVAL_S,
            "hold_s": median(hold_s),
            "held_up": round(median(hold_s) / SHORTEST_INTERVAL_S, 6),
        }
    )
    names = {EVERY: f"slowdown_every_{EVERY}/ray_train", 1: "slowdown_every_step/ray_train"}
    slower = {every: _slower(ours, every) for every in names}, {every: _slower(peers, every) for every in names}
    return rows_, {name: ratio_of_costs(slower[0][every], slower[1][every]) for every, name in names.items()}


def _slower(step_s: Mapping[int, Sequence[float]], every: int) -> list[float]:
    """Seconds a step with checkpoints over those without, round by round."""
    return [with_ / without for with_, without in zip(step_s[every], step_s[0], strict=True)]


def _seconds_a_step(steps: Sequence[tuple[int, float]]) -> float:
    (first, began_at), (last, ended_at) = steps[0], steps[-1]
    return (ended_at - began_at) / (last - first)


def _read_seconds(run: RunDirectory) -> dict[str, float]:
    progress = read_progress(run.attempt(1).progress)
    assert progress is not None
    spent = {"checkpoint": 0.0, "evaluation": 0.0, **progress.seconds}
    return {**spent, "all": sum(spent.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--only", choices=("losses", "checkpoints"), help="answer one of the two questions")
    parser.add_argument("--repeats", type=int, default=1, help="interleaved rounds")
    parser.add_argument("--steps", type=int, default=400, help="of a run whose checkpoints are measured")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root for network namespaces")
    rows: list[dict[str, Any]] = []
    ratios: dict[str, Ratio] = {}
    with tempfile.TemporaryDirectory(prefix="bench") as place:
        folder = Path(place)
        with made_bed(folder, folder, storage=folder / "runs", cpus=[0, 1, 1, 1]) as bed:
            bench = Bench(bed=bed, folder=folder, steps=arguments.steps)
            for name, answer in (("losses", losses), ("checkpoints", checkpoints)):
                if arguments.only in (None, name):
                    found, compared = answer(bench, arguments.repeats)
                    rows += found
                    ratios |= compared
    print_document(document(rows=rows, ratios=ratios), as_json=arguments.json)


if __name__ == "__main__":
    main()
