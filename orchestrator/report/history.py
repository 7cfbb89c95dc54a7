"""A run's whole history, read once: curves, what happened to it, its plan; what can't be read is said, not raised."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal

from orchestrator.errors import StorageError
from orchestrator.monitor.curve import Curve, GrowingCurve
from orchestrator.monitor.news import News, news_of
from orchestrator.monitor.run_reader import failure_event
from orchestrator.plan.plan import Plan
from orchestrator.run import files
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.evaluations import KeptEvaluation, read_evaluations
from orchestrator.run.passed_over import read_passed_over
from orchestrator.run.progress import read_progress
from orchestrator.run.segments import parse_rows
from orchestrator.run.state import State
from orchestrator.run.status import RunStatus, read_status

MarkKind = Literal["preempted", "resized", "stopped", "failed", "resumed", "rolled back", "schedule changed"]

PREEMPTION: Final = "preemption"
"""The word that the reason of a pause has where nodes were about to go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened to a run's training, to be shown at its step."""

    kind: MarkKind
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What the network came to on images that it isn't trained on; accuracies in percent."""

    step: int
    top1: float
    top5: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHistory:
    """All that a report says of a run comes from here. Curves are over optimiser steps."""

    status: RunStatus
    plan: Plan | None
    loss: Curve
    learning_rate: Curve
    images_per_s: Curve
    train_top1: Curve
    """In percent; a point an epoch, of the images that it had trained on when it was last written down."""
    evaluations: Sequence[Evaluation]
    """Of the validation set, oldest first."""
    test: Evaluation | None
    """Of the test set, where images are held out and the run is over."""
    asked_for: Sequence[KeptEvaluation]
    """What `dnctl eval` came to, oldest checkpoint first."""
    marks: Sequence[Mark]
    news: Sequence[News]
    """Events that people want to read of, oldest first: no checkpoints, no evaluations."""
    num_steps_left_out: int
    """Steps that the divergence guard has passed over."""
    missing: Sequence[str]
    """What the report can't show of this run and why, as sentences."""

    @property
    def name(self) -> str:
        """The run's name."""
        return self.status.run.name

    @property
    def is_finished(self) -> bool:
        """Whether it has trained to its last step."""
        return self.status.state is State.SUCCEEDED

    @property
    def steps_per_epoch(self) -> int | None:
        """None before the run has a plan."""
        if self.plan is not None:
            return self.plan.numerics.steps_per_epoch
        return self.status.progress.steps_per_epoch if self.status.progress is not None else None

    @property
    def epochs_done(self) -> float:
        """Epochs that it had trained for when its final figure was taken, of whichever weights that is."""
        steps = self.steps_per_epoch
        if self.final is None or steps is None:
            return 0.0
        if self.test is not None and self.plan is not None:
            return self.plan.numerics.epochs
        return self.final.step / steps

    def errors_with(self, crops: int) -> KeptEvaluation | None:
        """What `dnctl eval` came to with so many crops on the checkpoint that counts; None if nobody asked."""
        final = self.final
        return next((each for each in self.asked_for if final and (each.step, each.crops) == (final.step, crops)), None)

    @property
    def final(self) -> Evaluation | None:
        """What counts: the test set's figure where one is held back, otherwise that of the latest validation."""
        return self.test or (self.evaluations[-1] if self.evaluations else None)


_DULL: Final = ("checkpoint_saved", "checkpoint_deleted", "evaluated")
MAX_NEWS: Final = 200


@dataclass(slots=True)
class _Reading:
    """What was found so far, attempt after attempt."""

    loss: GrowingCurve = field(default_factory=GrowingCurve)
    learning_rate: GrowingCurve = field(default_factory=GrowingCurve)
    images_per_s: GrowingCurve = field(default_factory=GrowingCurve)
    train_top1: dict[int, tuple[int, float]] = field(default_factory=dict)
    """By epoch, counted from 0: the last step that was written down, and the accuracy."""
    evaluations: dict[int, Evaluation] = field(default_factory=dict)
    test: Evaluation | None = None
    marks: list[Mark] = field(default_factory=list)
    news: list[News] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    last_step: int = 0

    @property
    def by_step(self) -> dict[str, GrowingCurve]:
        """Curves with a point for each row of the metrics, by the row's key."""
        return {"loss": self.loss, "learning_rate": self.learning_rate, "images_per_s": self.images_per_s}

    def forget_beyond(self, step: int) -> None:
        """Drop what will be done again."""
        for curve in self.by_step.values():
            curve.forget_beyond(step)
        self.train_top1 = {epoch: point for epoch, point in self.train_top1.items() if point[0] <= step}
        self.evaluations = {at: each for at, each in self.evaluations.items() if at <= step}


def read_history(run: RunDirectory, *, now: float) -> RunHistory:
    """Everything of a run. Raises NotFoundError if there is none, StorageError if its state can't be read."""
    status = read_status(run, now=now)
    reading = _Reading()
    plan = _read_plan(run, reading.missing)
    asked_for, faults = read_evaluations(run.evaluations)
    reading.missing += [f"A result of `dnctl eval` can't be read: {fault}" for fault in faults]
    steps_per_epoch = plan.numerics.steps_per_epoch if plan is not None else None
    attempts = run.attempts()
    for number, attempt in enumerate(attempts):
        _read_attempt(reading, attempt, steps_per_epoch, is_first=number == 0)
    if plan is not None:
        reading.marks += [Mark(kind="schedule changed", step=each.step) for each in plan.deviations]
    reading.missing += _gaps(status, plan, reading, has_attempts=bool(attempts))
    return RunHistory(
        status=status,
        plan=plan,
        loss=reading.loss.curve(),
        learning_rate=reading.learning_rate.curve(),
        images_per_s=reading.images_per_s.curve(),
        train_top1=_train_curve(reading, steps_per_epoch),
        evaluations=tuple(reading.evaluations[step] for step in sorted(reading.evaluations)),
        test=reading.test,
        asked_for=tuple(asked_for),
        marks=tuple(reading.marks),
        news=tuple(reading.news[-MAX_NEWS:]),
        num_steps_left_out=_num_left_out(run, reading.missing),
        missing=tuple(reading.missing),
    )


def _read_plan(run: RunDirectory, missing: list[str]) -> Plan | None:
    try:
        with files.translated("read", run.plan):
            if run.plan.exists():
                return Plan.from_json(run.plan.read_text(errors="replace"))
    except StorageError as error:
        missing.append(f"Nothing can be said of its settings, since {run.plan.name} can't be read: {error}")
    else:
        missing.append("It has no plan yet, so nothing can be said of its settings.")
    return None


def _num_left_out(run: RunDirectory, missing: list[str]) -> int:
    try:
        return len(read_passed_over(run.passed_over).steps)
    except StorageError as error:
        missing.append(f"How many steps it has left out isn't known: {error}")
        return 0


def _read_attempt(reading: _Reading, attempt: AttemptDirectory, steps_per_epoch: int | None, *, is_first: bool) -> None:
    for event in _rows(reading, attempt, "events"):
        _take_event(reading, event, attempt, is_first=is_first)
    for row in _rows(reading, attempt, "metrics"):
        _take_row(reading, row, steps_per_epoch)
    progress = read_progress(attempt.progress)
    if progress is not None:
        reading.last_step = max(reading.last_step, progress.step)
    for path in attempt.worker_failures:
        reading.marks.append(Mark(kind="failed", step=progress.step if progress is not None else 0))
        reading.news.append(news_of(failure_event(path), attempt=attempt.number))


def _rows(reading: _Reading, attempt: AttemptDirectory, prefix: str) -> Iterator[dict[str, Any]]:
    """The rows of an attempt's log. Lines that are none are told of."""
    for path in sorted(attempt.path.glob(f"{prefix}-*.jsonl")):
        try:
            with files.translated("read", path), files.open_plain(path) as file:
                content = file.read()
        except StorageError as error:
            reading.missing.append(f"A part of its {prefix} is missing: {error}")
            continue
        rows = list(parse_rows(content))
        num_damaged = len(content.splitlines()) - len(rows)
        if num_damaged:
            lines = "a line" if num_damaged == 1 else f"{num_damaged} lines"
            reading.missing.append(
                f"{path.name} of attempt {attempt.number} is cut short or damaged: {lines} can't be read, and what "
                "they said is missing below."
            )
        yield from rows


def _take_row(reading: _Reading, row: dict[str, Any], steps_per_epoch: int | None) -> None:
    step = row.get("step")
    if not isinstance(step, int):
        return
    for key, curve in reading.by_step.items():
        value = row.get(key)
        if isinstance(value, (int, float)):
            curve.add(step, value)
    train_top1 = row.get("train_top1")
    if isinstance(train_top1, (int, float)) and steps_per_epoch is not None and step > 0:
        reading.train_top1[(step - 1) // steps_per_epoch] = (step, float(train_top1))


def _take_event(reading: _Reading, event: dict[str, Any], attempt: AttemptDirectory, *, is_first: bool) -> None:
    match event:
        case {"event": "evaluated", "step": int(step), "top1": float(top1), "top5": float(top5)}:
            reading.evaluations[step] = Evaluation(step=step, top1=top1, top5=top5)
        case {"event": "tested", "step": int(step), "top1": float(top1), "top5": float(top5)}:
            reading.test = Evaluation(step=step, top1=top1, top5=top5)
        case {"event": "training_resumes", "step": int(step)}:
            reading.forget_beyond(step)
            reading.marks.append(Mark(kind="resumed", step=step))
        case {"event": "training_starts"} if not is_first:
            reading.forget_beyond(0)
            reading.marks.append(Mark(kind="resumed", step=0))
        case {"event": "rolled_back", "step": int(step), "to_step": int(to_step)}:
            reading.forget_beyond(to_step)
            reading.marks.append(Mark(kind="rolled back", step=step))
        case {"event": "stopped", "step": int(step)}:
            reading.marks.append(Mark(kind="stopped", step=step))
        case {"event": "paused", "step": int(step)}:
            reading.marks.append(Mark(kind=_kind_of_pause(attempt), step=step))
    if event.get("event") not in _DULL:
        reading.news.append(news_of(event, attempt=attempt.number))


def _kind_of_pause(attempt: AttemptDirectory) -> MarkKind:
    try:
        reason = str(files.read_json(attempt.pause_request).get("reason", ""))
    except (FileNotFoundError, StorageError):
        return "preempted"
    return "preempted" if PREEMPTION in reason else "resized"


def _train_curve(reading: _Reading, steps_per_epoch: int | None) -> Curve:
    """A point an epoch, at the epoch's end, or, of the epoch that isn't over, where it is now."""
    if not reading.train_top1 or steps_per_epoch is None:
        return Curve()
    epochs = sorted(reading.train_top1)
    ends = [(epoch + 1) * steps_per_epoch for epoch in epochs]
    points = [reading.train_top1[epoch] for epoch in epochs]
    if reading.last_step < ends[-1]:
        ends[-1] = points[-1][0]
    return Curve(x=tuple(map(float, ends)), y=tuple(top1 for _, top1 in points))


def _gaps(status: RunStatus, plan: Plan | None, reading: _Reading, *, has_attempts: bool) -> Iterator[str]:
    """What a complete report would have and this one hasn't."""
    name, state = status.run.name, status.state
    if not has_attempts:
        yield f"It is {state} and hasn't begun to train: there are no curves and no results. {_what_next(status)}"
        return
    if state is not State.SUCCEEDED:
        progress = status.progress
        far = (
            f"at step {progress.step:,} of {progress.num_steps:,}" if progress is not None else "before its first step"
        )
        yield f"It isn't finished: {state} {far}, and all figures are as of then. {_what_next(status)}"
    loss = reading.loss.curve()
    if not loss.x:
        yield "There are no metrics yet: no curves of loss, learning rate and throughput."
    elif plan is not None and loss.x[-1] + _most_between_rows(loss, plan) < reading.last_step:
        yield (
            f"Its metrics end at step {loss.x[-1]:,.0f}, though it has done {reading.last_step:,}: the end of the log "
            "is lost, and the curves end there."
        )
    if not reading.evaluations and reading.test is None:
        yield (
            "It has not been evaluated yet, so there is no error to compare with the paper's. "
            f"`dnctl eval {name}` evaluates its newest checkpoint now."
        )


def _most_between_rows(loss: Curve, plan: Plan) -> float:
    """Steps that may lie between the last row and the run's step; rows of long runs are drawn together."""
    drawn_together = max((later - earlier for earlier, later in pairwise(loss.x)), default=0.0)
    return max(2.0 * plan.execution.log_every_steps, 2.0 * drawn_together)


def _what_next(status: RunStatus) -> str:
    name = status.run.name
    if status.state.is_active or status.state is State.PENDING:
        return f"`dnctl wait {name}` stays until it ends."
    return f"`dnctl resume {name}` goes on with it."
