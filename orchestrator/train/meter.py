"""Where the time of steps goes: waiting for images, communicating, computing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Means over a window of steps, per step and on this rank; None before the first step."""

    loss: float | None = None
    images_per_s: float | None = None
    """Images of all ranks."""
    step_s: float | None = None
    data_s: float | None = None
    """Waiting for the loader."""
    communication_s: float | None = None
    """Waiting for other ranks, beyond what the backward pass hid."""
    compute_s: float | None = None
    """The rest."""


class Meter:
    """Collects steps into windows. Evaluation and checkpoints don't count: see `paused`."""

    def __init__(self) -> None:
        self.is_first_report = True
        """Whether no window was closed yet: the first step is reported at once."""
        self._latest = Figures()
        self._seconds = dict.fromkeys(("data", "compute", "communication", "checkpoint", "evaluation"), 0.0)
        self._begin()

    def _begin(self) -> None:
        self._started_at = perf_counter()
        self._num_steps = self._num_images = 0
        self._data_s = self._communication_s = 0.0
        self._losses: list[float] = []

    def add_step(self, *, num_images: int, data_s: float, communication_s: float) -> None:
        """Count a step of the window."""
        self._num_steps += 1
        self._num_images += num_images
        self._data_s += data_s
        self._communication_s += communication_s

    def add_loss(self, mean_loss: float) -> None:
        """Count the mean loss of a step."""
        self._losses.append(mean_loss)

    @contextmanager
    def paused(self, activity: Literal["checkpoint", "evaluation"]) -> Iterator[None]:
        """Time inside belongs to that activity, and not to steps."""
        began_at = perf_counter()
        try:
            yield
        finally:
            elapsed_s = perf_counter() - began_at
            self._started_at += elapsed_s
            self._seconds[activity] += elapsed_s

    def seconds(self) -> dict[str, float]:
        """Where all time since the meter was made went, the open window included."""
        seconds, (data_s, compute_s, communication_s) = dict(self._seconds), self._shares()
        seconds["data"] += data_s
        seconds["compute"] += compute_s
        seconds["communication"] += communication_s
        return seconds

    def _shares(self) -> tuple[float, float, float]:
        """Data, compute and communication of the open window, in seconds; what is neither of two is compute."""
        elapsed_s = perf_counter() - self._started_at
        return self._data_s, max(elapsed_s - self._data_s - self._communication_s, 0.0), self._communication_s

    def figures(self, *, close_window: bool) -> Figures:
        """The figures of the latest closed window; `close_window` closes the one that is open."""
        if close_window and self._num_steps:
            num_steps, elapsed_s = self._num_steps, perf_counter() - self._started_at
            data_s, compute_s, communication_s = self._shares()
            self._seconds = self.seconds()
            self._latest = Figures(
                loss=sum(self._losses) / len(self._losses) if self._losses else self._latest.loss,
                images_per_s=self._num_images / elapsed_s,
                step_s=elapsed_s / num_steps,
                data_s=data_s / num_steps,
                communication_s=communication_s / num_steps,
                compute_s=compute_s / num_steps,
            )
            self.is_first_report = False
            self._begin()
        return self._latest
