"""Steps that a run leaves out because the divergence guard refused them: part of what the run computes.

They lie in one file of the run directory, so that a resumed run leaves out the same ones.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from orchestrator.errors import StorageError
from orchestrator.run import documents, files

LONGEST_WINDOW = 1_000_000
"""Steps; a file that names more is not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Steps `first` to `last`, both left out, after the last one was refused in `epoch` (0-based)."""

    first: int
    last: int
    epoch: int


@dataclass(frozen=True, kw_only=True)
class PassedOver:
    """All windows of a run, oldest first."""

    windows: tuple[Window, ...] = ()

    @cached_property
    def steps(self) -> frozenset[int]:
        """Every step that is left out."""
        return frozenset(step for window in self.windows for step in range(window.first, window.last + 1))

    def num_in_epoch(self, epoch: int) -> int:
        """How often a step of that epoch was refused."""
        return sum(window.epoch == epoch for window in self.windows)

    def with_window(self, *, first: int, last: int, epoch: int) -> "PassedOver":
        """These and one more."""
        return PassedOver(windows=(*self.windows, Window(first=first, last=last, epoch=epoch)))


def write_passed_over(path: Path, passed_over: PassedOver) -> None:
    """Replace the file. Raises StorageError."""
    files.write_json(path, {"windows": [asdict(window) for window in passed_over.windows]})


def read_passed_over(path: Path) -> PassedOver:
    """What a run leaves out; nothing if there is no file. Raises StorageError if it is damaged."""
    try:
        passed_over = documents.record(PassedOver, files.read_json(path))
        for window in passed_over.windows:
            if not window.first <= window.last < window.first + LONGEST_WINDOW:
                raise ValueError(f"steps {window.first} to {window.last}")
        return passed_over
    except FileNotFoundError:
        return PassedOver()
    except ValueError as error:
        raise StorageError(
            f"{path} is damaged ({error!r}): it says which steps the run leaves out, so it can't go on without; "
            "restore it, or start a new run"
        ) from error
