"""The Ray Train trainer of a run: placement, worker groups and restarts are Ray's."""

import logging
import math
import os
import re
import signal
from enum import Enum
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.exceptions import RayActorError
from ray.train import TrainingFailedError

from orchestrator.engine import nodes
from orchestrator.engine.limits import LimitWatch
from orchestrator.engine.network import TorchOnInterface
from orchestrator.engine.own_error import own_error
from orchestrator.engine.pausing import PauseWatch
from orchestrator.engine.planning import plan_on_cluster
from orchestrator.engine.task import WorkerTask
from orchestrator.engine.turn import Tell
from orchestrator.engine.waiting import WaitingForRoom
from orchestrator.errors import ClusterError, DnctlError, RunStoppedError, StorageError
from orchestrator.plan.plan import Execution, Placement
from orchestrator.recipe.load import load_recipe
from orchestrator.redaction import redacted
from orchestrator.run import files
from orchestrator.run.checkpoints import newest_step
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.ending import Ending, read_ending
from orchestrator.run.patience import is_passing, patiently
from orchestrator.run.pause import read_pause_request
from orchestrator.run.spent import Limits, read_spent
from orchestrator.run.state import State

_log = logging.getLogger(__name__)

MAX_FAULT_LENGTH = 160
NODES_TIMEOUT_S = 180.0
NEVER_S = 1e9
RELEASE_TIMEOUT_S = 10.0
PLACEMENT_TIMEOUT_S = "10"
"""After which Ray counts its nodes anew: it may have asked for places on one that has just gone."""
COLLECTIVE_GRACE_S = 60.0
"""At most so long beyond the time after which a worker ends itself as hung does a collective wait for others."""
SMALLEST_RESERVATION = 0.001
"""CPU cores of a worker that reserves none: Ray places nobody who asks for nothing."""


def fit_with_ray(run: RunDirectory, attempt: AttemptDirectory, holder: str, tell: Tell, *, num_nodes: int = 1) -> None:
    """Train a run on the Ray cluster that this process belongs to, to the end. Raises what Ray raises.

    One worker group after another: the next begins where the one before paused, or failed after some progress.
    num_nodes: how many nodes are on their way; the plan is for all of them.
    """
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", PLACEMENT_TIMEOUT_S)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False)
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own in place, which would let the state lie
    _log.info("connected to Ray at %s", ray.get_runtime_context().gcs_address)
    _wait_for_nodes(num_nodes)
    recipe = load_recipe(run.recipe)
    plan = plan_on_cluster(run, recipe, nodes.cluster_shape())
    assert recipe.data.root is not None
    task = WorkerTask(run=run, plan=plan, holder=holder, data_root=recipe.data.root, damaged=recipe.data.damaged)
    os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(math.ceil(plan.execution.hang_s)))
    worker = worker_resources(plan.placement)
    limits = limits_of(plan.execution)
    if (reached := limits.reached(read_spent(run, now=None))) is not None:
        raise RunStoppedError(f"stopped before it began: {reached}")
    watch, limit_watch = PauseWatch(run, plan.placement, worker), LimitWatch(run, limits)
    num_lost = 0
    try:
        while True:
            try:
                if _fit_once(attempt, task, tell) is _Next.NOTHING:
                    return
                num_lost = 0
            except RayActorError as error:
                num_lost += 1
                if num_lost > plan.execution.max_failures:
                    raise
                _log.warning("Ray's controller of the workers has died: %s", error)
            why = patiently(lambda: _why_again(run))
            if patiently(run.newest_attempt)[1] != holder:
                return  # another driver has taken the run over
            attempt = patiently(lambda: run.claim_attempt(holder))
            _tell_patiently(tell, why)
    finally:
        watch.close()
        limit_watch.close()


def limits_of(execution: Execution) -> Limits:
    """What a run may take, by its plan."""
    return Limits(
        max_hours=execution.max_hours,
        max_money=execution.max_money,
        price_per_worker_hour=execution.price_per_worker_hour,
    )


def _why_again(run: RunDirectory) -> str:
    """What to tell of the attempt that follows on the newest one."""
    pause = read_pause_request(run.attempt(run.newest_attempt()[0]).pause_request)
    return f"{pause.reason}; starting the workers again" if pause is not None else "starting the workers again"


def _tell_patiently(tell: Tell, why: str) -> None:
    patiently(lambda: tell(State.RECOVERING, why))


class _Next(Enum):
    ATTEMPT = "go on with another attempt"
    NOTHING = "the run has ended"


def _fit_once(attempt: AttemptDirectory, task: WorkerTask, tell: Tell) -> _Next:
    """Train until the workers end. Raises what Ray raises if they failed too often without progress."""
    run, plan = task.run, task.plan
    patiently(lambda: files.write_atomically(attempt.path / "plan.json", plan.to_json().encode()))
    newest = patiently(lambda: newest_step(run.checkpoints))
    waiting = WaitingForRoom(run, plan.placement, worker_resources(plan.placement), tell)
    try:
        trainer = _trainer(attempt, task)
        nodes.give_places_back()
        nodes.count_anew(gone=patiently(lambda: newest_reservation(run)))
        reservation = {"name": nodes.reservation_of(trainer)}
        patiently(lambda: files.write_json(attempt.reservation, reservation))
        trainer.fit()
    except (TrainingFailedError, RayActorError) as error:  # the latter: Ray's controller itself has died
        ending = patiently(lambda: _newest_ending(run))
        if ending is not None and ending.outcome == "paused":
            return _Next.ATTEMPT  # the first worker had saved and said so before another one failed
        if ending is None and patiently(lambda: newest_step(run.checkpoints)) > newest:
            _log.warning("the workers failed, but not without progress: %s", error)
            return _Next.ATTEMPT
        own = own_error(error)
        if own is None:
            raise
        raise own from error
    finally:
        waiting.close()
    ending = patiently(lambda: _newest_ending(run))
    return _Next.ATTEMPT if ending is not None and ending.outcome == "paused" else _Next.NOTHING


def newest_reservation(run: RunDirectory) -> str | None:
    """What an attempt before has left at Ray, if its controller, or the driver, died."""
    for attempt in reversed(run.attempts()):
        try:
            return str(files.read_json(attempt.reservation)["name"])
        except (FileNotFoundError, KeyError):
            continue
        except StorageError as error:  # without it, Ray lets go of the room some minutes later
            if is_passing(error):
                raise
    return None


def _newest_ending(run: RunDirectory) -> Ending | None:
    return read_ending(run.attempt(run.newest_attempt()[0]))


def _trainer(attempt: AttemptDirectory, task: WorkerTask) -> "ray.train.torch.TorchTrainer":
    execution, placement = task.plan.execution, task.plan.placement
    return ray.train.torch.TorchTrainer(
        lambda: _work(task),
        torch_config=TorchOnInterface(
            backend="nccl" if placement.device == "cuda" else "gloo",
            timeout_s=math.ceil(execution.hang_s + min(execution.hang_s, COLLECTIVE_GRACE_S)),
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=_num_workers(placement),
            use_gpu=placement.device == "cuda",
            resources_per_worker=worker_resources(placement),
            elastic_resize_monitor_interval_s=NEVER_S,  # Ray would end the workers in the middle of a step
        ),
        run_config=ray.train.RunConfig(
            name=f"attempt-{attempt.number}",
            storage_path=str(task.run.path / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=execution.max_failures, max_preemption_failures=-1),
            callbacks=[_FailureRecorder(task.run.path, task.holder)],
        ),
    )


def worker_resources(placement: Placement) -> dict[str, float]:
    """What Ray sets aside for each worker."""
    return {"CPU": placement.cpus_per_worker or SMALLEST_RESERVATION, "GPU": placement.gpus_per_worker}


def _num_workers(placement: Placement) -> int | tuple[int, int]:
    """How many workers to ask Ray for. It counts nodes that are about to go, on which it can place nobody."""
    low, high = placement.min_world_size, placement.max_world_size
    if low == high:
        return low
    if nodes.draining_nodes():
        high = min(high, _room_that_stays(placement))
    _log.info("asking Ray for %d to %d workers", low, high)
    return (low, high)


def _room_that_stays(placement: Placement) -> int:
    """For how many workers there is room on nodes that stay, at least the run's least number.

    The workers that were there until now may take a moment to be gone.
    """
    deadline = monotonic() + RELEASE_TIMEOUT_S
    while True:
        room = nodes.room_for(worker_resources(placement), nodes.free_resources())
        if room >= placement.min_world_size or monotonic() > deadline:
            return max(room, placement.min_world_size)
        sleep(0.2)


def _wait_for_nodes(num_nodes: int) -> None:
    deadline = monotonic() + NODES_TIMEOUT_S
    while (num_alive := sum(node["Alive"] for node in ray.nodes())) < num_nodes:
        if monotonic() > deadline:
            raise ClusterError(
                f"{num_alive} of {num_nodes} nodes have joined Ray in {NODES_TIMEOUT_S:.0f} s; the log of the job says "
                "what became of the others"
            )
        sleep(0.5)


def _work(task: WorkerTask) -> None:
    """What runs on each rank. The import is here so that Ray's controller and the driver don't pay for the network."""
    from orchestrator.engine.worker import train_worker

    train_worker(task)


class _FailureRecorder(ray.train.UserCallback):  # type: ignore[misc]
    """Notes in the run directory that workers failed, from Ray's controller, which is the first to know."""

    def __init__(self, run_path: Path, holder: str) -> None:
        self._run = RunDirectory(run_path)
        self._holder = holder

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        try:
            self._record(worker_exceptions)
        except DnctlError as error:  # what can't be noted must not keep Ray from starting the workers again
            _log.warning("%s", error)

    def _record(self, worker_exceptions: dict[int, Exception]) -> None:
        newest, holder = self._run.newest_attempt()
        if holder != self._holder:
            return
        attempt = self._run.attempt(newest)
        faults = {rank: _what_happened(error) for rank, error in sorted(worker_exceptions.items())}
        reason = "; ".join(f"worker {rank}: {fault}" for rank, fault in faults.items())
        number = len(attempt.worker_failures)
        files.write_json(
            attempt.path / f"worker-failure-{number:03d}.json", {"reason": redacted(f"starting again after {reason}")}
        )


def _what_happened(error: Exception) -> str:
    """The line of an exception that says it; Ray's texts hold whole tracebacks of the worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    line = (telling or lines or [type(error).__name__])[-1 if telling else 0]
    return line[:MAX_FAULT_LENGTH]
