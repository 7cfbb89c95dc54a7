"""When a fault strikes, as data: each moment is waited for and, where it would be over at once, held while it does."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from time import time

from orchestrator.run.checkpoints import COMMITTED
from orchestrator.run.progress import Progress
from tests.multihost.faults import Fault
from tests.multihost.scene import HistoryError, Scene, send

FRESH_S = 0.5
"""Of figures: they tell where the run is now, or nearly."""
MAX_MISSES = 200
GLANCE_S = 0.001
"""A checkpoint of a small network is written in some ten times as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One kind of moment."""

    name: str
    of: Callable[[Scene], AbstractContextManager[None]]
    """Begins when the moment is there; a fault that strikes inside strikes in it."""


@contextmanager
def _first_step(scene: Scene) -> Iterator[None]:
    """The workers of an attempt have met and are about to do its first step."""
    before = 0
    if scene.progress() is not None:
        before = scene.attempt().number
        _kill_and_wait(scene)
    scene.until(
        lambda: (attempt := scene.attempt()).number > before and attempt.worker_nodes.exists(), "workers that have met"
    )
    yield


@contextmanager
def _within_epoch(scene: Scene) -> Iterator[None]:
    """Steps from the epoch's ends, nothing else going on."""

    def is_within(progress: Progress) -> bool:
        step = progress.step % progress.steps_per_epoch
        return progress.activity == "training" and 0.1 < step / progress.steps_per_epoch < 0.9

    scene.until(lambda: _fresh(scene, is_within), "the middle of an epoch")
    yield


@contextmanager
def _while_saving(scene: Scene) -> Iterator[None]:
    """A checkpoint is partly written; its writer is stopped."""
    for _ in range(MAX_MISSES):
        scene.until(lambda: is_partly_written(scene), "a checkpoint that is being written", every_s=GLANCE_S)
        with scene.standstill.held(scene.process_of(0)):
            if is_partly_written(scene):
                yield
                return
    raise HistoryError(f"no checkpoint of {MAX_MISSES} was caught half written")


def is_partly_written(scene: Scene) -> bool:
    """Of this attempt's checkpoints, the newest: an older one without its marker is being deleted."""
    begun = sorted(scene.run.checkpoints.glob(f"step-*.{scene.attempt().number}"))
    with suppress(FileNotFoundError, IndexError):
        names = {file.name for file in begun[-1].iterdir()}
        return bool(names) and COMMITTED not in names
    return False


@contextmanager
def _while_evaluating(scene: Scene) -> Iterator[None]:
    """An evaluation has just begun; the first rank is stopped."""
    scene.until(lambda: _fresh(scene, lambda progress: progress.activity == "evaluating"), "an evaluation")
    with scene.standstill.held(scene.process_of(0)):
        yield


@contextmanager
def _during_recovery(scene: Scene) -> Iterator[None]:
    """A worker was killed, that has been noticed, and the others aren't back yet."""
    scene.until(lambda: _fresh(scene, lambda progress: progress.step > progress.first_step), "a step")
    _kill_and_wait(scene)
    yield


def _kill_and_wait(scene: Scene) -> None:
    """Kill a worker and wait until that is noticed."""
    attempt = scene.attempt()
    send(scene.process_of(scene.rank()), signal.SIGKILL)
    scene.until(
        lambda: attempt.worker_failures or scene.attempt().number > attempt.number, "the loss of a worker, noticed"
    )


def _fresh(scene: Scene, holds: Callable[[Progress], bool]) -> bool:
    progress = scene.progress()
    if progress is None or progress.at is None or time() - progress.at > FRESH_S:
        return False
    return holds(progress)


MOMENTS = {
    moment.name: moment
    for moment in (
        Moment(name="at the first step", of=_first_step),
        Moment(name="in the middle of an epoch", of=_within_epoch),
        Moment(name="during a checkpoint", of=_while_saving),
        Moment(name="during evaluation", of=_while_evaluating),
        Moment(name="during recovery", of=_during_recovery),
    )
}


def moments_of(fault: Fault) -> list[Moment]:
    """When a fault strikes."""
    return [
        moment for name, moment in MOMENTS.items() if (name == fault.only if fault.only else name not in fault.never)
    ]
