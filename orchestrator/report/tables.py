"""The tables of a report's page."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Final

from orchestrator.plan.paper import IMAGENET_ROWS, WIDE_ROWS, ImagenetRow, Setting, SmallImagesRow
from orchestrator.report.comparison import Compared
from orchestrator.report.document import Report
from orchestrator.report.figures.ledger import LABELS
from orchestrator.report.history import RunHistory
from orchestrator.report.markup import Markup, element, joined
from orchestrator.report.setting import (
    SMALL_IMAGES_ROWS,
    SettingOrImagenet,
    imagenet_row,
    setting_name,
    small_images_row,
)
from orchestrator.run.family import Spread

_UNKNOWN: Final = "–"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, marked: Sequence[int] = ()) -> Markup:
    """A table whose first column is text and whose others are numbers; a card a row on narrow screens.

    marked: rows that are set off from the others.
    """
    head = element("tr", *(element("th", heading, scope="col") for heading in headings))
    body = [
        element(
            "tr",
            *(
                _cell(heading, value, is_first=column == 0)
                for column, (heading, value) in enumerate(zip(headings, row, strict=True))
            ),
            class_="marked" if number in marked else None,
        )
        for number, row in enumerate(rows)
    ]
    return element("table", element("thead", head), element("tbody", *body))


def _cell(heading: str, value: str, *, is_first: bool) -> Markup:
    if is_first:
        return element("th", value, scope="row")
    return element("td", value, data_label=heading)


def results(groups: Sequence[Compared]) -> Markup:
    """Each group's figures beside the paper's; top-5 errors of the paper where it has any for one of them."""
    has_top5 = any(compared.paper is not None and compared.paper.top5 is not None for compared in groups)
    headings = (
        "run",
        "network",
        "data",
        "epochs",
        "parameters",
        "mult-adds",
        "top-1 error, %",
        "paper",
        "top-5 error, %",
    )
    rows = [_result_row(compared) for compared in groups]
    if not has_top5:
        return table(headings, rows)
    top5 = [_papers(compared.paper.top5 if compared.paper else None, compared.top5_difference) for compared in groups]
    return table((*headings, "paper"), [(*row, papers) for row, papers in zip(rows, top5, strict=True)])


def _result_row(compared: Compared) -> Sequence[str]:
    group, numerics, cost, paper = compared.group, compared.group.numerics, compared.cost, compared.paper
    return (
        group.label,
        numerics.model.name if numerics is not None else _UNKNOWN,
        _data(compared),
        f"{group.epochs_done:.4g} of {numerics.epochs:,}" if numerics is not None else _UNKNOWN,
        f"{cost.num_parameters:,}" if cost is not None else _UNKNOWN,
        f"{cost.num_multiply_adds / 1e6:,.1f} M" if cost is not None else _UNKNOWN,
        spread_text(group.top1_error),
        _papers(paper.top1 if paper is not None else None, compared.difference),
        spread_text(group.top5_error),
    )


def _data(compared: Compared) -> str:
    if compared.setting is not None:
        return setting_name(compared.setting)
    return "its own" if compared.group.numerics is not None else _UNKNOWN


def _papers(error: float | None, difference: float | None) -> str:
    """The paper's figure and how far ours is from it."""
    return _number(error) if difference is None else f"{_number(error)} ({signed(difference)})"


def papers_table(setting: SettingOrImagenet, groups: Sequence[Compared]) -> Markup:
    """The paper's rows of a setting, and beneath the one of its network each group's."""
    return _imagenet_table(groups) if setting == "imagenet" else _small_images_table(setting, groups)


def _imagenet_table(groups: Sequence[Compared]) -> Markup:
    headings = (
        "network",
        "top-1, 1 crop",
        "top-1, 10 crops",
        "top-5, 1 crop",
        "top-5, 10 crops",
        "difference of top-1",
    )
    rows: list[Sequence[str]] = []
    marked = []
    left = list(groups)
    for row in IMAGENET_ROWS:
        cells = [_number(value) for value in (*row.top1, *row.top5)]
        rows.append((row.network, *cells, ""))
        for compared in [each for each in left if _row(each) is row]:
            left.remove(compared)
            marked.append(len(rows))
            rows.append(_imagenet_row(compared))
    for compared in left:
        marked.append(len(rows))
        rows.append(_imagenet_row(compared))
    return table(headings, rows, marked=marked)


def _imagenet_row(compared: Compared) -> Sequence[str]:
    group, numerics = compared.group, compared.group.numerics
    own = numerics.eval_transform.crops if numerics is not None else 1
    errors = {1: group.errors_with(1), 10: group.errors_with(10), own: (group.top1_error, group.top5_error)}
    (top1, top5), (top1_of_ten, top5_of_ten) = errors[1], errors[10]
    by_crops = (_if_any(top1), _if_any(top1_of_ten), _if_any(top5), _if_any(top5_of_ten))
    return (group.label, *by_crops, signed(compared.difference))


def _if_any(spread: Spread | None) -> str:
    return "" if spread is None else spread_text(spread)


def _small_images_table(setting: Setting, groups: Sequence[Compared]) -> Markup:
    headings = ("method", "depth", "params", "error, %", "difference")
    rows: list[Sequence[str]] = []
    marked = []
    left = list(groups)
    for row in SMALL_IMAGES_ROWS:
        error = row.errors[setting]
        if error is None:
            continue
        readme = " (authors' README)" if row in WIDE_ROWS else ""
        rows.append((row.method + readme, row.depth, row.parameters, _number(error), ""))
        for compared in [each for each in left if _row(each) is row]:
            left.remove(compared)
            marked.append(len(rows))
            rows.append(_small_images_row(compared))
    for compared in left:
        marked.append(len(rows))
        rows.append(_small_images_row(compared))
    return table(headings, rows, marked=marked)


def _small_images_row(compared: Compared) -> Sequence[str]:
    cost = f"{compared.cost.num_parameters / 1e6:.1f}M" if compared.cost is not None else _UNKNOWN
    group = compared.group
    return (group.label, _UNKNOWN, cost, spread_text(group.top1_error), signed(compared.difference))


def _row(compared: Compared) -> SmallImagesRow | ImagenetRow | None:
    """The row of the paper's table that a group stands beneath."""
    numerics = compared.group.numerics
    if numerics is None:
        return None
    return imagenet_row(numerics) if compared.setting == "imagenet" else small_images_row(numerics)


def runs_table(report: Report) -> Markup:
    """Each run by itself."""
    headings = (
        "run",
        "state",
        "seed",
        "workers",
        "attempts",
        "top-1 error, %",
        "top-5 error, %",
        "wall time",
        "goodput",
    )
    return table(headings, [_run_row(run) for run in report.runs])


def _run_row(run: RunHistory) -> Sequence[str]:
    progress, final, ledger = run.status.progress, run.final, run.status.ledger
    return (
        run.name,
        str(run.status.state),
        str(run.plan.numerics.seed) if run.plan is not None else _UNKNOWN,
        str(progress.world_size) if progress is not None else _UNKNOWN,
        str(run.status.record.attempt),
        _number(100 - final.top1 if final is not None else None),
        _number(100 - final.top5 if final is not None else None),
        duration(ledger.wall_s),
        f"{100 * ledger.goodput:.1f} %" if ledger.goodput is not None else _UNKNOWN,
    )


def asked_for_table(report: Report) -> Markup:
    """What `dnctl eval` came to."""
    rows = [
        (
            run.name,
            f"{each.step:,}",
            str(each.crops),
            f"{each.num_images:,}",
            _number(each.top1_error),
            _number(each.top5_error),
        )
        for run in report.runs
        for each in run.asked_for
    ]
    return table(("run", "step", "crops", "images", "top-1 error, %", "top-5 error, %"), rows)


def ledger_table(report: Report) -> Markup:
    """Where the wall time of each run went."""
    ledgers = [(run.name, run.status.ledger) for run in report.runs]
    rows = [
        (label, *(duration(asdict(ledger)[entry]) for _, ledger in ledgers))
        for entry, label in LABELS.items()
        if any(asdict(ledger)[entry] for _, ledger in ledgers)
    ]
    rows.append(("all", *(duration(ledger.wall_s) for _, ledger in ledgers)))
    return table(("time went into", *(name for name, _ in ledgers)), rows, marked=[len(rows) - 1])


def news_table(run: RunHistory) -> Markup:
    """What happened to a run."""
    rows = [(_time(news.at), str(news.attempt), news.text) for news in run.news]
    return table(("time, UTC", "attempt", "what"), rows)


def stages_table(compared: Compared) -> Markup:
    """A network as in the paper's Table 1, with what its stages cost."""
    assert compared.cost is not None
    rows = [
        (row.stage, row.output, row.layers, f"{row.num_parameters:,}", f"{row.num_multiply_adds / 1e6:,.1f} M")
        for row in compared.cost.rows
    ]
    return table(("stage", "output", "layers", "parameters", "multiply-adds"), rows)


def sentences(given: Sequence[str]) -> Markup:
    """A list; what stands between backticks is code."""
    return element("ul", *(element("li", _with_code(each)) for each in given))


def _with_code(sentence: str) -> Markup:
    parts = sentence.split("`")
    return joined(*(element("code", part) if number % 2 else part for number, part in enumerate(parts)))


def spread_text(spread: Spread | None) -> str:
    """5.10, or, of several runs, 5.10 ± 0.20: their mean and standard deviation."""
    if spread is None:
        return _UNKNOWN
    if spread.deviation is None:
        return f"{spread.mean:.2f}"
    return f"{spread.mean:.2f} ± {spread.deviation:.2f}"


def signed(difference: float | None) -> str:
    """With its sign, plus included."""
    return _UNKNOWN if difference is None else f"{difference:+.2f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, after days where there are any."""
    return str(timedelta(seconds=round(max(seconds, 0.0))))


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.2f}"


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"
