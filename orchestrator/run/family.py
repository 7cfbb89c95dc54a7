"""A family of runs: one recipe, some of its keys varied. Which members it has, and what they came to together."""

import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import UsageError

SEED = "seed"
MAX_MEMBERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A key of the recipe and the values that it takes in turn, as they were typed."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One run of a family."""

    name: str
    settings: Mapping[str, str]
    """What it overrides: key to value, as typed."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """As `--set` takes them."""
        return tuple(f"{key}={value}" for key, value in self.settings.items())

    @property
    def group(self) -> tuple[tuple[str, str], ...]:
        """All but the seed: members that differ in their seed alone are repetitions of one another."""
        return tuple((key, value) for key, value in self.settings.items() if key != SEED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure over repetitions."""

    mean: float
    deviation: float | None
    """Standard deviation of the sample; None of a single one."""
    count: int


def parse_axis(text: str) -> Axis:
    """An axis from KEY=VALUE,VALUE…; commas within brackets don't count. Raises UsageError."""
    key, equals, values = text.partition("=")
    parts = tuple(part.strip() for part in re.split(r",(?![^\[{]*[\]}])", values))
    if not equals or not key.strip() or not all(parts):
        raise UsageError(f"--over {text}: found no key and values; allowed: KEY=VALUE,VALUE, such as seed=0,1,2")
    if len(set(parts)) < len(parts):
        raise UsageError(f"--over {text}: a value is given twice")
    return Axis(key=key.strip(), values=parts)


def members(family: str, axes: Sequence[Axis]) -> tuple[Member, ...]:
    """Every combination of the axes' values, the last axis changing fastest. Raises UsageError."""
    keys = [axis.key for axis in axes]
    if len(set(keys)) < len(keys):
        raise UsageError(f"--over names {', '.join(key for key in keys if keys.count(key) > 1)} more than once")
    count = math.prod(len(axis.values) for axis in axes)
    if count > MAX_MEMBERS:
        raise UsageError(f"that would be {count} runs; {MAX_MEMBERS} at most make a family")
    made = []
    for values in itertools.product(*(axis.values for axis in axes)):
        settings = dict(zip(keys, values, strict=True))
        parts = [f"{key.rpartition('.')[2]}{_plain(value)}" for key, value in settings.items()]
        made.append(Member(name=".".join((family, *parts)), settings=settings))
    if len({member.name for member in made}) < len(made):
        raise UsageError("two of the runs would have the same name; take values that differ in letters and digits")
    return tuple(made)


def _plain(value: str) -> str:
    """A value as a part of a run's name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", value).strip("-")


def spread(figures: Sequence[float]) -> Spread | None:
    """Mean and standard deviation; None of nothing."""
    if not figures:
        return None
    deviation = statistics.stdev(figures) if len(figures) > 1 else None
    return Spread(mean=statistics.fmean(figures), deviation=deviation, count=len(figures))
