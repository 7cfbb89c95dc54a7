"""The part of `dnctl plan` that says how long a run takes where nodes fail, and what that costs."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import human_time
from orchestrator.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from orchestrator.plan.forecast import Forecast, Interval, Spread
    from orchestrator.plan.forecast_inputs import Measured
    from orchestrator.plan.plan import Plan

MtbfOption = Annotated[
    float | None,
    typer.Option(
        "--mtbf-hours", metavar="H", min=0.001, help="Forecast: nodes fail every so many hours each, on average."
    ),
]
NoticeOption = Annotated[
    float | None,
    typer.Option("--notice-s", metavar="S", min=0, help="Forecast: a node says so long before that it goes."),
]
NodesOption = Annotated[
    int | None,
    typer.Option(
        "--nodes", min=1, max=4096, help="Forecast: on so many nodes; the cluster's, or 8 GPUs a node, if left out."
    ),
]
ReplacementOption = Annotated[
    float | None,
    typer.Option("--replace-minutes", metavar="M", min=0, help="Forecast: until there is another node; 5 if left out."),
]
PriceOption = Annotated[
    float | None,
    typer.Option(
        "--price-per-hour",
        metavar="P",
        min=0,
        help="Forecast: what a node costs an hour; the recipe's price of its workers if left out.",
    ),
]
LikeOption = Annotated[
    str | None, typer.Option("--like", metavar="RUN", help="Forecast: with what this run was measured to take.")
]

REPLACEMENT_MINUTES = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What was asked."""

    mtbf_hours: float
    notice_s: float
    num_nodes: int
    replacement_s: float
    price_per_hour: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A forecast with what it rests on."""

    question: Question
    forecast: "Forecast"
    sources: tuple[str, ...]
    is_auto: bool
    """Whether the time between checkpoints is the loop's own choice."""

    def to_json(self) -> dict[str, Any]:
        """What `dnctl plan --json` has under `forecast`; None for what never ends."""
        found, price = self.forecast, self.question.price_per_hour
        return {
            **asdict(self.question),
            "hours": _scaled(found.wall_s, 1 / 3600),
            "undisturbed_hours": found.undisturbed_s / 3600,
            "node_hours": _scaled(found.node_s, 1 / 3600),
            "price": None if price is None else _scaled(found.node_s, price / 3600),
            "failures": found.num_failures,
            "goodput": found.goodput,
            "checkpoint_interval_s": _finite(found.interval_s),
            "intervals": {name: _interval(getattr(found, name)) for name in ("best", "young", "daly")},
            "costs": asdict(found.costs),
            "speeds": found.nodes.speeds,
            "rests_on": self.sources,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """What `dnctl plan` prints."""
        found, question = self.forecast, self.question
        notice = f"{question.notice_s:g} s before they say so" if question.notice_s else "without saying so before"
        count = question.num_nodes
        yield (
            "if",
            f"{count} node{' fails' if count == 1 else 's fail'} every {question.mtbf_hours:g} h each, {notice}; "
            f"another is there {human_time(question.replacement_s)} later, and meanwhile the run "
            + ("goes on with fewer" if any(0 < speed < 1 for speed in found.nodes.speeds) else "waits"),
        )
        yield "time", f"{_spread(found.wall_s, _hours)}; {human_time(found.undisturbed_s)} if nothing failed"
        yield "goodput", f"{found.goodput:.1%} of the wall time; {found.num_failures:.1f} failures"
        if question.price_per_hour is not None:
            price = question.price_per_hour / 3600
            yield "money", _spread(found.node_s, lambda seconds: _money(seconds * price))
        yield "saved", self._interval()
        yield "rests on", "; ".join(self.sources)

    def _interval(self) -> str:
        found = self.forecast
        chosen = "as auto chooses once it has seen such failures" if self.is_auto else "as the recipe says"
        every = "at epochs alone" if math.isinf(found.interval_s) else f"every {human_time(found.interval_s)}"
        best, young, daly = (human_time(each.interval_s) for each in (found.best, found.young, found.daly))
        gain = 1 - found.best.mean_wall_s / found.wall_s.mean if math.isfinite(found.wall_s.mean) else 0.0
        better = f"best {best}, {gain:.1%} less time" if gain >= 0.001 else "no other takes less time"
        return f"{every}, {chosen}; {better}; Young {young}, Daly {daly}"


def answer(plan: "Plan", question: Question, measured: "Measured | None") -> Answer:
    """Forecast a plan's run. Raises PlanError if nobody knows how long a step takes."""
    from orchestrator.plan.forecast import forecast
    from orchestrator.plan.forecast_inputs import basis_of, nodes_of

    basis = basis_of(plan, measured)
    nodes = nodes_of(
        plan,
        count=question.num_nodes,
        mtbf_s=3600 * question.mtbf_hours,
        notice_s=question.notice_s,
        replacement_s=question.replacement_s,
    )
    minutes = plan.execution.checkpoint_every_minutes
    interval_s = None if minutes == "auto" else math.inf if minutes is None else 60 * minutes
    return Answer(
        question=question,
        forecast=forecast(basis.costs, nodes, interval_s=interval_s),
        sources=basis.sources,
        is_auto=minutes == "auto",
    )


def measured_of(name: str, plan: "Plan") -> "Measured":
    """What the run of that name took. Raises NotFoundError, StorageError or UsageError."""
    from orchestrator.engine.planning import load_plan
    from orchestrator.run.catalogue import find_run, storage_root
    from orchestrator.run.measured import measure

    run = find_run(storage_root(), name)
    own = load_plan(run)
    if own is None:
        raise NotFoundError(f"run {run.name} has no plan yet, so there is nothing to forecast from")
    return measure(run, own, numerics=plan.numerics)


def refuse_without_mtbf(**options: object) -> None:
    """Raise UsageError for options of a forecast that none was asked with."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: that goes with --mtbf-hours H, which asks for a forecast")


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _scaled(spread: "Spread", factor: float) -> dict[str, float | None]:
    return {name: _finite(value * factor) for name, value in asdict(spread).items()}


def _interval(interval: "Interval") -> dict[str, float | None]:
    return {"interval_s": interval.interval_s, "mean_hours": _finite(interval.mean_wall_s / 3600)}


def _hours(seconds: float) -> str:
    return human_time(seconds) if math.isfinite(seconds) else "no end"


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if math.isfinite(amount) else "no end"


def _spread(spread: "Spread", shown: Any) -> str:
    return (
        f"{shown(spread.p50)} in the median history, {shown(spread.p10)} to {shown(spread.p90)} in 80 % of them, "
        f"{shown(spread.mean)} on average"
    )
