"""A curve that grows for weeks in bounded memory: neighbours are averaged when there are too many points."""

from bisect import bisect_right
from dataclasses import dataclass, field

MAX_POINTS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points with ascending x, as they are to be drawn."""

    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()


@dataclass(slots=True)
class GrowingCurve:
    """Collects points; beyond MAX_POINTS each one that is kept stands for twice as many as before."""

    _x: list[float] = field(default_factory=list)
    _y: list[float] = field(default_factory=list)
    _stride: int = 1
    _pending: list[float] = field(default_factory=list)

    def add(self, x: float, y: float) -> None:
        """Add a point. One at or before an earlier x replaces all from there on: a step that was done again."""
        if self._x and x <= self._x[-1]:
            self.forget_beyond(x - 1)
        self._pending.append(y)
        if len(self._pending) == self._stride:
            self._x.append(x)
            self._y.append(sum(self._pending) / self._stride)
            self._pending.clear()
        if len(self._x) == MAX_POINTS:
            self._x = self._x[1::2]
            self._y = [(first + second) / 2 for first, second in zip(self._y[::2], self._y[1::2], strict=True)]
            self._stride *= 2

    def forget_beyond(self, x: float) -> None:
        """Drop what lies beyond x: steps that will be done again."""
        kept = bisect_right(self._x, x)
        del self._x[kept:], self._y[kept:]
        self._pending.clear()

    def curve(self) -> Curve:
        """The points so far."""
        return Curve(x=tuple(self._x), y=tuple(self._y))
