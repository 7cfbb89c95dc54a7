"""One worker of a run: what Ray Train starts on each rank. Around the loop it sets up logs, data and the reporter."""

import faulthandler
import logging
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import ray
import ray.train
import ray.train.torch

from orchestrator.data.index import Dataset, index_dataset
from orchestrator.engine.checkup import GroupCheck, check_group
from orchestrator.engine.notices.own_node import acknowledge, watch_own_node
from orchestrator.engine.task import WorkerTask
from orchestrator.errors import DataError, DnctlError, RunStoppedError, StorageError
from orchestrator.plan.placement import at_world_size
from orchestrator.redaction import RedactingFormatter
from orchestrator.run import files
from orchestrator.run.checkpoints import newest_step
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.ending import Ending, failure, read_ending, record_ending
from orchestrator.run.lease import LARGEST_CLOCK_DIFFERENCE_S
from orchestrator.run.patience import patiently
from orchestrator.run.spent import write_worker_nodes
from orchestrator.run.stop import read_stop_request
from orchestrator.train.compilation import keep_compiled
from orchestrator.train.loop import Outcome, train
from orchestrator.train.reporter import RunReporter, SilentReporter
from orchestrator.train.world import World

_log = logging.getLogger(__name__)

AWAY_S = 30.0
"""After which a storage that isn't there counts as one that this node doesn't have."""


def train_worker(task: WorkerTask) -> None:
    """Train as one rank of Ray's worker group, to the end of the run."""
    context = ray.train.get_context()
    world = World(rank=context.get_world_rank(), size=context.get_world_size(), device=ray.train.torch.get_device())
    attempt = _join_attempt(task, world)
    if attempt is None:
        return
    check = _check_group(world, task.run, attempt)
    _redirect_output(attempt.rank_log(world.rank))
    worker_nodes = world.gather_text(ray.get_runtime_context().get_node_id())
    if world.is_first:
        write_worker_nodes(attempt.worker_nodes, worker_nodes)
    _log.info("worker %d of %d, process %d, on %s", world.rank, world.size, os.getpid(), world.device)
    watch = watch_own_node() if context.get_local_rank() == 0 else None
    try:
        outcome = _train(task, attempt, world, check)
    except DnctlError as error:
        _log.error("%s", error)
        with suppress(StorageError):  # which may be the very error; Ray is told in any case
            record_ending(attempt, failure(error))
        raise
    finally:
        if watch is not None:
            watch.close()
    if world.is_first:
        record_ending(attempt, ending_of(outcome, task))
    if watch is not None and outcome is Outcome.PAUSED:
        acknowledge(watch)


def _join_attempt(task: WorkerTask, world: World) -> AttemptDirectory | None:
    """The attempt that this group of workers is; None if the run has ended, or is another driver's by now."""
    number = world.broadcast(patiently(lambda: _number_of_attempt(task)) if world.is_first else None)
    return None if number is None else task.run.attempt(number)


def _number_of_attempt(task: WorkerTask) -> int | None:
    with suppress(StorageError):
        patiently(lambda: files.require(task.run.path), patience_s=AWAY_S)
    if not task.run.path.is_dir():
        raise StorageError(
            f"on {socket.gethostname()} there is no {task.run.path}: the nodes don't share storage; mount the same one "
            "there on every node, or set DNCTL_STORAGE to a folder that is shared"
        )
    newest, holder = task.run.newest_attempt()
    attempt = task.run.attempt(newest)
    if holder != task.holder or read_ending(attempt) is not None:
        return None
    # An earlier group of workers may have had that number, or have failed before it could take it.
    while attempt.worker_failures or not files.create_exclusively(attempt.path / "workers.json", b"{}"):
        attempt = task.run.claim_attempt(task.holder)
    return attempt.number


def _check_group(world: World, run: RunDirectory, attempt: AttemptDirectory) -> GroupCheck:
    """What the nodes have in common. Raises StorageError on every rank if that isn't enough to train.

    Of a run that has trained before, it is a node that isn't ready yet or an outage: Ray tries again with others.
    """
    check = check_group(world, attempt.path / "checkup")
    faults = list(check.faults(attempt.path))
    if faults:
        error = StorageError("; ".join(faults))
        if world.is_first and newest_step(run.checkpoints) == 0:
            record_ending(attempt, failure(error))
        world.gather_text("")  # the first one has said so, before Ray learns that anybody failed
        raise error
    return check


def _redirect_output(path: Path) -> None:
    """Send all that this process prints, native libraries included, to its log in the run directory."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    faulthandler.enable()
    logging.captureWarnings(capture=True)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _train(task: WorkerTask, attempt: AttemptDirectory, world: World, check: GroupCheck) -> Outcome:
    keep_compiled(task.run.compiled.absolute())
    dataset = _open_dataset(task)
    plan = at_world_size(task.plan, world.size)
    if not world.is_first:
        return train(plan, dataset, world, SilentReporter())
    execution = task.plan.execution
    reporter = RunReporter(
        task.run, attempt=attempt.number, keep_last=execution.keep_last, keep_best=execution.keep_best
    )
    _report_check(reporter, check)
    try:
        return train(plan, dataset, world, reporter)
    finally:
        reporter.close()


def _report_check(reporter: RunReporter, check: GroupCheck) -> None:
    if len(check.ranks) == 1:
        return
    difference_s = check.clock_difference_s
    reporter.event(
        "workers_checked",
        backend=check.backend,
        interface=check.ranks[0].interface,
        sum_bytes=check.sum_bytes,
        sum_s=check.sum_s,
        clock_difference_s=difference_s,
    )
    if difference_s > LARGEST_CLOCK_DIFFERENCE_S:
        hosts = {rank.host: rank.clock_ahead_s for rank in check.ranks}
        reporter.event("clocks_differ", clock_difference_s=difference_s, ahead_s=hosts)


def _open_dataset(task: WorkerTask) -> Dataset:
    dataset = index_dataset(task.data_root, damaged=task.damaged)
    expected = task.plan.numerics.data_fingerprint
    if dataset.fingerprint != expected:
        raise DataError(
            f"{task.data_root} is not the data that this run began with: its fingerprint is {dataset.fingerprint}, "
            f"the plan says {expected}; put the data back as it was, or start a new run"
        )
    return dataset


def ending_of(outcome: Outcome, task: WorkerTask) -> Ending:
    """What the first rank says of how the loop ended."""
    if outcome is Outcome.PAUSED:
        return Ending(outcome="paused", reason="paused, with a checkpoint, for other workers to go on", exit_code=0)
    if outcome is Outcome.STOPPED:
        request = read_stop_request(task.run.stop_request)
        reason = request.reason if request is not None else None
        return Ending(
            outcome="stopped",
            reason=f"stopped with a checkpoint: {reason}" if reason else "stopped on request, with a checkpoint",
            exit_code=RunStoppedError.exit_code,
        )
    return Ending(outcome="finished", reason=f"trained {task.plan.numerics.epochs} epochs", exit_code=0)
