"""Where the time of steps goes: waiting for images, communicating, computing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter


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
    def paused(self) -> Iterator[None]:
        """Time inside doesn't belong to steps."""
        began_at = perf_counter()
        try:
            yield
        finally:
            self._started_at += perf_counter() - began_at

    def figures(self, *, close_window: bool) -> Figures:
        """The figures of the latest closed window; `close_window` closes the one that is open."""
        if close_window and self._num_steps:
            num_steps, elapsed_s = self._num_steps, perf_counter() - self._started_at
            self._latest = Figures(
                loss=sum(self._losses) / len(self._losses) if self._losses else self._latest.loss,
                images_per_s=self._num_images / elapsed_s,
                step_s=elapsed_s / num_steps,
                data_s=self._data_s / num_steps,
                communication_s=self._communication_s / num_steps,
                compute_s=max(elapsed_s - self._data_s - self._communication_s, 0.0) / num_steps,
            )
            self.is_first_report = False
            self._begin()
        return self._latest
