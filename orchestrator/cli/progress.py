"""Progress bars for what takes long, on stderr and only where a person sees them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from orchestrator.cli.output import stderr


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function to call with (done, total). The bar goes away when it is over."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True, disable=not stderr().is_terminal) as progress:
        task = None

        def advance(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = progress.add_task(description, total=total)
            progress.update(task, completed=done, total=total)

        yield advance


@contextmanager
def byte_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function to call, from any thread, with (what is being done, bytes done, bytes in all)."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True, disable=not stderr().is_terminal) as progress:
        tasks: dict[str, TaskID] = {}
        lock = Lock()

        def advance(description: str, done: int, total: int) -> None:
            with lock:
                if description not in tasks:
                    tasks[description] = progress.add_task(description, total=total)
                progress.update(tasks[description], completed=done, total=total)

        yield advance
