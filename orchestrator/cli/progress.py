"""Progress bars for what takes long, on stderr and only where a person sees them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from orchestrator.cli.output import stderr

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, TaskID

NamedProgress = Callable[[str, int, int], None]
"""Called with (what is being done, done, total), from any thread. Each thing that is done has a bar of its own."""


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function to call with (done, total). The bar goes away when it is over."""
    with item_progress() as advance:
        yield lambda done, total: advance(description, done, total)


@contextmanager
def item_progress() -> Iterator[NamedProgress]:
    """Bars that count things."""
    from rich.progress import MofNCompleteColumn

    with _bars(MofNCompleteColumn()) as advance:
        yield advance


@contextmanager
def byte_progress() -> Iterator[NamedProgress]:
    """Bars that count bytes."""
    from rich.progress import DownloadColumn

    with _bars(DownloadColumn()) as advance:
        yield advance


@contextmanager
def to_be_gone_on_with() -> Iterator[None]:
    """Around what Ctrl-C may end: says that nothing is lost by it."""
    try:
        yield
    except KeyboardInterrupt:
        stderr().print("The same command goes on where this one stopped.")
        raise


@contextmanager
def _bars(amount: "ProgressColumn") -> Iterator[NamedProgress]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True, disable=not stderr().is_terminal) as progress:
        tasks: dict[str, TaskID] = {}
        lock = Lock()

        def advance(description: str, done: int, total: int) -> None:
            with lock:
                if description not in tasks:
                    tasks[description] = progress.add_task(description, total=total)
                progress.update(tasks[description], completed=done, total=total)

        yield advance
