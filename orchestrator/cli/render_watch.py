"""What `dnctl watch` shows of one run: a function of what was read and of the size of the screen."""

from collections.abc import Sequence

from rich.text import Text

from orchestrator.cli.chart import bar, draw
from orchestrator.cli.output import human_time
from orchestrator.cli.render_status import accuracy, position, state_text
from orchestrator.cli.render_workers import render_nodes, render_workers
from orchestrator.cli.screen import beside, clock, fit, fit_block, plain, rule, spread
from orchestrator.monitor.curve import Curve
from orchestrator.monitor.news import News
from orchestrator.monitor.view import RunView, phase_shares
from orchestrator.run.progress import Progress
from orchestrator.run.state import State

WIDE = 120
"""From this many columns on, all four curves are in one row, and events stand beside the workers."""
MIN_CHART_HEIGHT = 3
QUIET = frozenset({"checkpoint_deleted"})
"""Events that nobody needs to see live."""


def render_run(view: RunView, *, width: int, height: int) -> Text:
    """The screen of a run, `height` lines of `width` cells."""
    lines = _head(view, width)
    rest = height - len(lines)
    if width >= WIDE:
        charts_height = max(rest * 2 // 5, MIN_CHART_HEIGHT + 1)
        lines += beside(*_charts(view, width, charts_height, num_columns=4))
        lines += _workers_beside_news(view, width, height - len(lines))
    else:
        charts_height = max(rest * 2 // 5, MIN_CHART_HEIGHT + 1)
        lines += beside(*_charts(view, width, charts_height, num_columns=2))
        rest = height - len(lines)
        workers = render_workers(view, width=width, height=max(rest // 2, 2), or_hosts=True)
        lines += workers
        lines += _news(view.news, width, rest - len(workers))
    return Text("\n").join(fit_block(lines, width, height))


def _head(view: RunView, width: int) -> list[Text]:
    """State and why, how far, how good, how fast."""
    status, progress = view.status, view.status.progress
    record = status.record
    state = Text.assemble((status.run.name, "bold"), "  ", state_text(status.state), "  ", plain(status.reason))
    if status.state in (State.PENDING, State.STARTING, State.RECOVERING):
        state.append(f"  for {human_time(max(status.at - record.updated_at, 0))}")
    recoveries = max(record.attempt - 1, 0)
    attempt = f"attempt {record.attempt}" + (f", went on {recoveries} times" if recoveries > 1 else "")
    lines = [spread(state, attempt if record.attempt else "", width)]
    if progress is not None:
        lines += [fit(line, width) for line in _progress_lines(view, progress, width)]
    for straggler in view.stragglers[:2]:
        lines.append(fit(Text(f"! {straggler.sentence}", style="bold yellow"), width))
    if len(view.stragglers) > 2:
        lines.append(fit(Text(f"! and {len(view.stragglers) - 2} more workers are slow", style="bold yellow"), width))
    return lines


def _progress_lines(view: RunView, progress: Progress, width: int) -> list[str]:
    epoch = min(progress.epoch + 1, progress.num_epochs)
    in_epoch = progress.step - (epoch - 1) * progress.steps_per_epoch
    bar_width = max(min(width - 50, 60), 10)
    left = ""
    if progress.eta_s is not None and view.status.state is State.RUNNING:
        left = f"{human_time(progress.eta_s)} left"
    done = progress.step / progress.num_steps
    epoch_text, run_text = f"epoch {position(epoch, progress.num_epochs)}", f"run {100 * done:.1f} %"
    head_width = max(len(epoch_text), len(run_text)) + 1
    return [
        f"{epoch_text:{head_width}}{bar(in_epoch / progress.steps_per_epoch, bar_width)} "
        f"step {position(in_epoch, progress.steps_per_epoch)}",
        f"{run_text:{head_width}}{bar(done, bar_width)} step {position(progress.step, progress.num_steps)}  {left}",
        "  ".join(_quality(progress, with_training=width >= WIDE)),
        "  ".join(_speed(view, progress)),
        "  ".join(_safety(view, progress)),
    ]


def _quality(progress: Progress, *, with_training: bool) -> list[str]:
    figures = [
        f"loss {progress.loss:.4f}" if progress.loss is not None else "",
        f"lr {progress.learning_rate:g}" if progress.learning_rate is not None else "",
        f"train top-1 {accuracy(progress.train_top1)} %" if with_training and progress.train_top1 is not None else "",
        f"top-1 {accuracy(progress.top1)} %  top-5 {accuracy(progress.top5)} %" if progress.top1 is not None else "",
        f"best top-1 {accuracy(progress.best_top1)} %" if progress.best_top1 is not None else "",
    ]
    return [figure for figure in figures if figure] or ["no figures yet"]


def _speed(view: RunView, progress: Progress) -> list[str]:
    shares = [f"{phase} {100 * share:.0f} %" for phase, share in phase_shares(view.status).items()]
    return [f"{progress.images_per_s:.1f} images/s" if progress.images_per_s else "no speed yet", *shares]


def _safety(view: RunView, progress: Progress) -> list[str]:
    workers = f"{progress.world_size} {'worker' if progress.world_size == 1 else 'workers'}"
    wanted = view.world_size_wanted
    if wanted is not None and wanted != progress.world_size:
        workers += f" of {wanted} wanted"
    if view.workers is not None:
        num_hosts = len(set(view.workers.host))
        workers += f" on {num_hosts} {'host' if num_hosts == 1 else 'hosts'}"
    if progress.last_checkpoint is None:
        return [workers, "no checkpoint yet"]
    age_s = view.status.checkpoint_age_s
    age = "" if age_s is None else f", {human_time(age_s)} old"
    return [workers, f"checkpoint {progress.last_checkpoint}{age}"]


def _charts(view: RunView, width: int, height: int, *, num_columns: int) -> list[list[Text]]:
    charts = [
        ("loss", "step", view.loss, "{:.4g}", None),
        ("top-1", "epoch", view.top1, "{:.2f} %", None),
        ("learning rate", "step", view.learning_rate, "{:.3g}", 0.0),
        ("images/s", "step", view.images_per_s, "{:.4g}", 0.0),
    ]
    column_width = (width - num_columns + 1) // num_columns
    return [_chart(*chart, width=column_width, height=height) for chart in charts[:num_columns]]


def _chart(
    title: str, unit: str, curve: Curve, number: str, lowest: float | None, *, width: int, height: int
) -> list[Text]:
    extent = f"{unit} {curve.x[0]:.0f}–{curve.x[-1]:.0f}" if curve.x else "no points yet"
    latest = f" {number.format(curve.y[-1])}" if curve.y else ""
    lines = draw(curve, width=width, height=height - 1, label=number.format, lowest=lowest)
    return [rule(title + latest, width, note=extent), *(fit(line, width) for line in lines)]


def _workers_beside_news(view: RunView, width: int, height: int) -> list[Text]:
    left_width = (width - 1) // 2
    hosts = render_nodes(view, width=left_width, height=max(height // 3, 3))
    workers = render_workers(view, width=left_width, height=height - len(hosts))
    left = fit_block([*workers, *hosts], left_width, height)
    return beside(left, fit_block(_news(view.news, width - left_width - 1, height), width - left_width - 1, height))


def _news(news: Sequence[News], width: int, height: int) -> list[Text]:
    """The latest events, the newest at the bottom."""
    if height < 2:
        return []
    shown = [item for item in news if item.kind not in QUIET][1 - height :]
    return [rule("events", width), *(fit(news_line(item), width) for item in shown)]


def news_line(item: News) -> Text:
    """An event in a line: when, a mark if it is bad, what."""
    style = "bold yellow" if item.is_bad else ""
    return Text.assemble((clock(item.at), "dim"), (" ! " if item.is_bad else "   "), (plain(item.text), style))
