"""Runs the training loop for tests: in this process, or as several ranks without Ray."""

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

from orchestrator.engine.planning import make_plan, write_plan, write_recipe
from orchestrator.plan.cluster import ClusterShape
from orchestrator.recipe.load import load_recipe
from orchestrator.run.checkpoints import MANIFEST, list_checkpoints
from orchestrator.run.directory import RunDirectory
from orchestrator.run.segments import read_segments
from tests.rank_process import rank_of

SMALL = (
    "train.global_batch_size=16",
    "train.epochs=3",
    "train.schedule.warmup_epochs=0",
    "train.log_every_steps=1",
    "data.train.image_size=32",
    "data.num_threads=1",
    "cluster.cpus_per_worker=0",
    "eval.batch_size=8",
)


_RANKS = multiprocessing.get_context("forkserver")
_RANKS.set_forkserver_preload(["tests.rank_process"])
"""Ranks are forked from a process that has imported all they need."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a finished training left."""

    run: RunDirectory

    def rows(self) -> dict[int, dict[str, Any]]:
        """Metrics by step; the newest attempt's where several have done a step."""
        rows: dict[int, dict[str, Any]] = {}
        for attempt in self.run.attempts():
            rows |= {row["step"]: row for row in read_segments(attempt.path, "metrics")}
        return rows

    def losses(self) -> list[float]:
        rows = self.rows()
        return [rows[step]["loss"] for step in sorted(rows)]

    def samples(self) -> list[int]:
        rows = self.rows()
        return [rows[step]["samples_checksum"] for step in sorted(rows)]

    def tensors_sha256(self) -> dict[str, str]:
        """Hashes of the last checkpoint's weights, statistics and momentum."""
        manifest = json.loads((list_checkpoints(self.run.checkpoints)[-1].path / MANIFEST).read_text())
        return {name: manifest["files"][name]["sha256"] for name in ("model.safetensors", "optimizer.safetensors")}

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [
            event
            for attempt in self.run.attempts()
            for event in read_segments(attempt.path, "events")
            if event["event"] == kind
        ]


def make_run(path: Path, images: Path, *, workers: int, overrides: Sequence[str] = ()) -> RunDirectory:
    """A run of the demo network on small images, planned for so many workers."""
    settings = [f"data.root={images}", f"cluster.workers={workers}", *SMALL, *overrides]
    recipe = load_recipe("demo", settings)
    run = RunDirectory(path)
    if not run.exists():
        run.create(now=time())
    write_recipe(run, recipe)
    write_plan(run, make_plan(recipe, ClusterShape(num_cpus=workers)))
    return run


def train_ranks(run: RunDirectory, *, workers: int, die: str = "never") -> Trained:
    """Train as so many processes joined by gloo, as one more attempt.

    die: "never", "at:STEP" (SIGKILL after that step) or "saving:STEP" (in the middle of writing that checkpoint).
    """
    attempt = run.claim_attempt("test")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(workers)}
    logs = [attempt.path / f"stderr-{rank}" for rank in range(workers)]
    processes = [
        _RANKS.Process(target=rank_of, args=(run.path, attempt.number, die, {**environment, "RANK": str(rank)}, log))
        for rank, log in enumerate(logs)
    ]
    for process in processes:
        process.start()
    if die != "never":
        processes[0].join(timeout=240)
        assert processes[0].exitcode == -signal.SIGKILL, _said(logs)
        for process in processes[1:]:
            process.kill()
    for process in processes:
        process.join(timeout=240)
    if die == "never":
        assert [process.exitcode for process in processes] == [0] * workers, _said(logs)
    return Trained(run)


def _said(logs: Sequence[Path]) -> str:
    return "\n".join(log.read_text(errors="replace") for log in logs if log.exists())
