"""Runs that begin after others have SUCCEEDED: which order may be asked for, and whether a run's turn has come.

The driver of the run that waits looks at the others' directories; it has no workers by then and so no GPUs.
"""

from collections.abc import Iterator, Sequence

from orchestrator.errors import DnctlError, NotFoundError, UsageError
from orchestrator.run.directory import RunDirectory
from orchestrator.run.state import State
from orchestrator.run.status import RunStatus, read_status


def refuse_order(run: RunDirectory, others: Sequence[RunDirectory], *, now: float) -> None:
    """Raise UsageError if `run` can't wait for `others`: for itself, in a circle, or for what has ended already."""
    for other in others:
        if other.name == run.name:
            raise UsageError(f"--after {other.name}: a run can't wait for itself")
        if run.name in _waited_for(other, seen=set()):
            raise UsageError(f"--after {other.name}: {other.name} itself waits for {run.name} to end")
        status = read_status(other, now=now)
        if status.state in (State.FAILED, State.STOPPED):
            raise UsageError(
                f"--after {other.name}: {other.name} is {status.state} ({status.reason}), so there is nothing to wait "
                f"for; `dnctl resume {other.name}` first, or leave out --after"
            )


def _waited_for(run: RunDirectory, *, seen: set[str]) -> Iterator[str]:
    """All that a run waits for, and what that waits for; seen: runs that were looked at already."""
    if run.name in seen or not run.exists():
        return
    seen.add(run.name)
    record = run.read_state()
    if record.state.is_finished:
        return
    for name in record.after:
        yield name
        yield from _waited_for(RunDirectory(run.path.parent / name), seen=seen)


def what_it_waits_for(run: RunDirectory, *, now: float) -> str | None:
    """What a run waits for, in words; None if its turn has come.

    Raises DnctlError if it never will: a run that it waits for ended otherwise, or is gone.
    """
    waiting = []
    for name in run.read_state().after:
        status = _status(run, name, now=now)
        if status.state in (State.FAILED, State.STOPPED):
            raise DnctlError(
                f"it was to begin after {name}, which {status.state}: {status.reason}; `dnctl resume {name}`, then "
                f"`dnctl resume {run.name} --after {name}`, or without --after to begin at once"
            )
        if status.state is not State.SUCCEEDED:
            waiting.append(status)
    if not waiting:
        return None
    lost = [f"{status.run.name} is LOST, `dnctl resume` it" for status in waiting if status.state is State.LOST]
    return in_words([status.run.name for status in waiting]) + (f"; {'; '.join(lost)}" if lost else "")


def in_words(names: Sequence[str]) -> str:
    """The reason of a run that waits for these."""
    *first, last = names
    return f"waits for {' and '.join([', '.join(first), last] if first else [last])} to end"


def _status(run: RunDirectory, name: str, *, now: float) -> RunStatus:
    try:
        return read_status(RunDirectory(run.path.parent / name), now=now)
    except NotFoundError:
        raise DnctlError(
            f"it was to begin after {name}, and there is no such run any more; `dnctl resume {run.name}` begins at once"
        ) from None
