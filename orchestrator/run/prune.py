"""What may be deleted of old runs, and deleting it so that nothing is ever left half deleted and taken for whole.

Never a run that somebody drives or that waits for its turn, nor one that another run waits for. A run that hasn't
SUCCEEDED can be resumed, so unless it is named it keeps its newest whole checkpoint, and with it itself; one that reads
LOST is left alone altogether, since its driver may only be cut off.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from time import time

from orchestrator.errors import StorageError, UsageError
from orchestrator.run import files
from orchestrator.run.checkpoints import best_checkpoint, delete_checkpoint, list_checkpoints, newest_whole
from orchestrator.run.directory import RunDirectory
from orchestrator.run.lease import living_holder
from orchestrator.run.state import State
from orchestrator.run.status import RunStatus, read_status

_DELETING = ".deleting-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A run, or a checkpoint of one, that may go."""

    run: RunDirectory
    state: State
    ended_at: float
    checkpoint: str | None
    """Its name; None if the run as a whole goes."""
    num_bytes: int

    @property
    def path(self) -> Path:
        """What goes."""
        return self.run.path if self.checkpoint is None else self.run.checkpoints / self.checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A run that was looked at and stays, though it is old enough."""

    run: str
    why: str


def named_runs(names: Sequence[RunDirectory], *, among: Sequence[RunDirectory], now: float) -> list[RunStatus]:
    """Runs that a person names. Raises UsageError if one of them is alive, or another run waits for it."""
    statuses = [read_status(run, now=now) for run in names]
    awaited = _awaited(list(_readable(among, [], now=now)))
    for status in statuses:
        if status.run.name in awaited:
            raise UsageError(f"{awaited[status.run.name]} waits for {status.run.name}; delete that one first")
        if is_alive(status):
            raise UsageError(
                f"{status.run.name} is {status.state}: {status.reason}; `dnctl stop --now {status.run.name}` first"
            )
    return statuses


def old_runs(
    runs: Sequence[RunDirectory], *, before: float, keep: int, now: float
) -> tuple[list[RunStatus], list[Kept]]:
    """Runs that ended before a moment, but for the `keep` that ended last; and those that stay though they are old."""
    chosen: list[RunStatus] = []
    kept: list[Kept] = []
    statuses = list(_readable(runs, kept, now=now))
    awaited = _awaited(statuses)
    ended = sorted((status for status in statuses if status.state.is_finished), key=_ended_at)
    for status in ended[: max(len(ended) - keep, 0)]:
        if _ended_at(status) >= before:
            continue
        if status.run.name in awaited:
            kept.append(Kept(run=status.run.name, why="another run waits for it"))
        else:
            chosen.append(status)
    kept += [
        Kept(run=status.run.name, why="LOST: its driver may only be cut off; name it to delete it")
        for status in statuses
        if status.state is State.LOST and status.record.updated_at < before
    ]
    return chosen, kept


def _awaited(statuses: Sequence[RunStatus]) -> dict[str, str]:
    """The runs that others wait for, and one of those."""
    waiting = [status for status in statuses if not status.record.state.is_finished]
    return {name: status.run.name for status in waiting for name in status.record.after}


def _readable(runs: Sequence[RunDirectory], kept: list[Kept], *, now: float) -> Iterator[RunStatus]:
    for run in runs:
        try:
            yield read_status(run, now=now)
        except StorageError as error:
            kept.append(Kept(run=run.name, why=str(error)))


def _ended_at(status: RunStatus) -> float:
    return status.record.finished_at or status.record.updated_at


def is_alive(status: RunStatus) -> bool:
    """Whether somebody drives it, or it waits to be driven."""
    return not status.state.is_finished and status.state is not State.LOST


def whole_runs(statuses: Sequence[RunStatus], *, are_named: bool) -> tuple[list[Deletion], list[Kept]]:
    """Of these runs, those that may go as a whole."""
    deletions, kept = [], []
    for status in statuses:
        could_go_on = status.state is not State.SUCCEEDED and bool(list_checkpoints(status.run.checkpoints))
        if could_go_on and not are_named:
            why = f"{status.state} with a checkpoint: it can be resumed; name it to delete it"
            kept.append(Kept(run=status.run.name, why=why))
        else:
            deletions.append(_deletion(status, None))
    return deletions, kept


def superseded_checkpoints(statuses: Sequence[RunStatus]) -> list[Deletion]:
    """Of these runs, the checkpoints older than the newest whole one, but for the best. None is whole: all stay."""
    deletions = []
    for status in statuses:
        checkpoints = list_checkpoints(status.run.checkpoints)
        newest = newest_whole(status.run.checkpoints, passed_over=lambda *_: None) if len(checkpoints) > 1 else None
        if newest is None:
            continue
        best = best_checkpoint(status.run.checkpoints, "top1")
        deletions += [
            _deletion(status, checkpoint.path.name)
            for checkpoint in checkpoints[: checkpoints.index(newest[0])]
            if checkpoint != best
        ]
    return deletions


def _deletion(status: RunStatus, checkpoint: str | None) -> Deletion:
    path = status.run.path if checkpoint is None else status.run.checkpoints / checkpoint
    return Deletion(
        run=status.run,
        state=status.state,
        ended_at=_ended_at(status),
        checkpoint=checkpoint,
        num_bytes=_num_bytes(path),
    )


def _num_bytes(path: Path) -> int:
    with files.translated("measure", path):
        return sum(entry.lstat().st_size for entry in path.rglob("*") if not entry.is_dir())


def delete(deletion: Deletion) -> None:
    """Delete what was chosen, unless the run has come to life since. Raises UsageError or StorageError.

    A run is renamed first, so that it is there or isn't; a checkpoint loses its marker first.
    """
    status = read_status(deletion.run, now=time())
    if is_alive(status) or (status.state is State.LOST and living_holder(deletion.run.lease) is not None):
        raise UsageError(f"{deletion.run.name} is alive by now; nothing of it was deleted")
    with files.translated("delete", deletion.path):
        if deletion.checkpoint is not None:
            delete_checkpoint(deletion.path)
            return
        doomed = deletion.run.path.with_name(f"{_DELETING}{deletion.run.name}-{token_hex(4)}")
        deletion.run.path.rename(doomed)
        shutil.rmtree(doomed)


def finish_deletions(root: Path) -> None:
    """Delete the rest of runs whose deletion was cut short. Raises StorageError."""
    with files.translated("delete the rest of runs in", root):
        for doomed in root.glob(f"{_DELETING}*"):
            shutil.rmtree(doomed)
