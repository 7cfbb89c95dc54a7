"""Run directories as running, finished and troubled runs leave them, for tests and benchmarks of what reads them."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import time

from orchestrator.run import files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.lease import LEASE_DURATION_S, Lease
from orchestrator.run.progress import Progress, write_progress
from orchestrator.run.segments import SegmentWriter
from orchestrator.run.state import State, write_state
from orchestrator.run.workers import Straggler, Workers, write_workers

PROGRESS = Progress(
    step=1200,
    num_steps=1920,
    epoch=5,
    num_epochs=8,
    steps_per_epoch=240,
    world_size=2,
    loss=0.1739,
    learning_rate=0.01,
    train_top1=95.0,
    top1=96.63,
    top5=100.0,
    best_top1=96.63,
    images_per_s=245.1,
    data_s=0.01,
    compute_s=0.2,
    communication_s=0.03,
    eta_s=188.0,
    last_checkpoint="step-00001200.1",
    activity="training",
)


def make_workers(num_workers: int, *, stragglers: Sequence[Straggler] = (), gpus: bool = False) -> Workers:
    """Figures of workers, eight on a host."""
    ranks = range(num_workers)
    return Workers(
        step=1200,
        at=time(),
        host=tuple(f"node-{rank // 8}" for rank in ranks),
        process_id=tuple(1000 + rank for rank in ranks),
        device=tuple(f"cuda:{rank % 8}" if gpus else "cpu" for rank in ranks),
        data_s=tuple(0.01 for _ in ranks),
        compute_s=tuple(0.2 for _ in ranks),
        communication_s=tuple(0.03 for _ in ranks),
        process_memory_bytes=tuple(600 << 20 for _ in ranks),
        host_memory_used_bytes=tuple(5 << 30 for _ in ranks),
        host_memory_bytes=tuple(24 << 30 for _ in ranks),
        gpu_memory_used_bytes=tuple((40 << 30) if gpus else None for _ in ranks),
        gpu_memory_bytes=tuple((80 << 30) if gpus else None for _ in ranks),
        gpu_utilization_percent=tuple(93.0 if gpus else None for _ in ranks),
        stragglers=tuple(stragglers),
    )


STRAGGLER = Straggler(rank=1, host="node-0", phase="compute", factor=2.1, seconds=0.42, others_s=0.2, since_step=1100)


def make_run(
    root: Path,
    name: str,
    *,
    state: State = State.RUNNING,
    progress: Progress = PROGRESS,
    workers: Workers | None = None,
    num_rows: int = 120,
    now: float | None = None,
) -> RunDirectory:
    """A run in its first attempt, with metrics, events and figures; a living lease if its state is an active one."""
    now = time() if now is None else now
    run = RunDirectory(root / name)
    run.create(now=now - 100)
    run.recipe.write_text("model: {name: densenet_demo}\n")
    attempt = run.claim_attempt("holder")
    events, metrics = SegmentWriter(attempt.path, "events"), SegmentWriter(attempt.path, "metrics")
    events.append({"time": now - 90, "event": "training_starts", "step": 0, "world_size": progress.world_size})
    for row in range(1, num_rows + 1):
        step = row * progress.step // max(num_rows, 1)
        figures = {"loss": 2.3 / row, "learning_rate": 0.1, "images_per_s": 240.0 + row % 7}
        metrics.append({"time": now - 90 + row / 2, "step": step, **figures})
    for epoch in range(1, progress.epoch + 1):
        top1 = 100 - 60 / epoch
        events.append({"time": now - 80 + 10 * epoch, "event": "evaluated", "epoch": epoch, "top1": top1, "top5": 99.0})
    events.append({"time": now - 12, "event": "checkpoint_saved", "checkpoint": progress.last_checkpoint, "step": 1200})
    events.close()
    metrics.close()
    write_progress(attempt.progress, replace(progress, last_checkpoint_at=now - 12))
    if workers is not None:
        write_workers(attempt.telemetry, workers)
    finished_at = now if state.is_finished else None
    record = replace(run.read_state(), state=state, reason="training", attempt=1, updated_at=now)
    write_state(run.state, replace(record, finished_at=finished_at, exit_code=0 if finished_at else None))
    if state.is_active:
        renew_lease(run, now=now)
    return run


def mark_running(run: RunDirectory, *, now: float, duration_s: float = LEASE_DURATION_S) -> None:
    """Let a run's first attempt look alive."""
    write_state(run.state, replace(run.read_state(), state=State.RUNNING, reason="training", attempt=1, updated_at=now))
    renew_lease(run, now=now, duration_s=duration_s)


def renew_lease(run: RunDirectory, *, now: float, duration_s: float = LEASE_DURATION_S) -> None:
    """Let a run's driver be heard of."""
    lease = Lease(holder="holder", host="node-0", process_id=1, attempt=1, renewed_at=now, expires_at=now + duration_s)
    files.write_json(run.lease, asdict(lease))
