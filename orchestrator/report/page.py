"""A report as one HTML file: nothing is fetched, no script runs; legible on a phone, on a desk and on paper."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from orchestrator import __version__
from orchestrator.report import tables
from orchestrator.report.document import Report
from orchestrator.report.figures.curves import MAX_DRAWN
from orchestrator.report.figures.style import DOTS_PER_INCH, Picture
from orchestrator.report.markup import Markup, element, joined, text, void_element
from orchestrator.report.setting import SettingOrImagenet, setting_name

_CSS_PIXELS_PER_INCH: Final = 96
_NOTHING_FROM_ELSEWHERE: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE: Final = Markup("""
:root { color-scheme: light; --ink: #1b1b1b; --faint: #5a5a5a; --line: #d5d5d5; --marked: #e8f1f8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1rem; color: var(--ink); background: white;
       font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, ul { margin: .4rem 0; max-width: 46rem; }
ul { padding-left: 1.2rem; }
.faint, figcaption { color: var(--faint); font-size: .875rem; }
.missing { border-left: 4px solid #d55e00; padding: .1rem 0 .1rem .8rem; margin: 1rem 0; }
.missing h2 { border: 0; margin: .3rem 0; }
code { font: .9em ui-monospace, monospace; background: #f2f2f2; padding: 0 .2em; border-radius: 3px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; margin: .5rem 0; overflow-wrap: normal; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child { text-align: left; overflow-wrap: anywhere; min-width: 8rem; }
thead th { font-weight: 600; vertical-align: bottom; border-bottom-color: var(--ink); }
tbody th { font-weight: 400; }
td { white-space: nowrap; }
.texts td { text-align: left; white-space: normal; }
tr.marked { background: var(--marked); }
tr.marked > * { font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1.2rem; }
figure { margin: 0; break-inside: avoid; }
img { display: block; max-width: 100%; height: auto; }
summary { cursor: pointer; }
@media (max-width: 40rem) {
  .wide:not(.narrow) thead { position: absolute; left: -999rem; }
  .wide:not(.narrow) :is(table, tbody) { display: block; }
  .wide:not(.narrow) tr { display: block; padding: .4rem 0; border-bottom: 1px solid var(--line); }
  .wide:not(.narrow) :is(th, td) { display: flex; justify-content: space-between; gap: 1rem; border: 0;
                                   padding: .05rem .3rem; text-align: right; }
  .wide:not(.narrow) th { font-weight: 600; text-align: left; }
  .wide:not(.narrow) td::before { content: attr(data-label); color: var(--faint); text-align: left; }
  .wide:not(.narrow) td:empty { display: none; }
  .narrow :is(th, td) { padding: .2rem .3rem; }
  .narrow table { font-size: .8rem; }
  .narrow th:first-child { min-width: 5.5rem; overflow-wrap: break-word; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .figures { grid-template-columns: 1fr 1fr; }
  table { font-size: 8pt; }
  th, td { padding: .15rem .3rem; }
  h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; }
  .wide { overflow: visible; }
}
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The figures of a report, by the section that they stand in."""

    curves: Sequence[Picture]
    tradeoffs: Sequence[Picture]
    reuse: Sequence[Picture]
    ledger: Picture | None
    missing: Sequence[str]
    """Why a figure isn't there, as sentences."""

    @property
    def every(self) -> Sequence[Picture]:
        """All of them."""
        return [*self.curves, *self.tradeoffs, *self.reuse, *([self.ledger] if self.ledger is not None else [])]


def report_page(report: Report, pictures: Pictures) -> str:
    """The page."""
    names = ", ".join(run.name for run in report.runs)
    title = f"dnctl report: {names}"
    head = element(
        "head",
        void_element("meta", charset="utf-8"),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_FROM_ELSEWHERE}">'),
        element("title", title),
        element("style", _STYLE),
    )
    body = element("body", _heading(report, names), *_sections(report, pictures))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _heading(report: Report, names: str) -> Markup:
    made_at = f"{datetime.fromtimestamp(report.made_at, UTC):%Y-%m-%d %H:%M} UTC"
    paper = "Huang, Liu, van der Maaten, Weinberger, Densely Connected Convolutional Networks, CVPR 2017"
    return joined(
        element("h1", names),
        element("p", f"Made by dnctl {__version__} on {made_at}. The paper is {paper}.", class_="faint"),
    )


def _sections(report: Report, pictures: Pictures) -> Sequence[Markup]:
    groups = report.groups
    settings: dict[SettingOrImagenet, None] = {each.setting: None for each in groups if each.setting is not None}
    sections = [
        _missing(report, pictures),
        element("h2", "Results"),
        _scrolled(tables.results(groups)),
        element("p", _what_errors_are(report), class_="faint"),
        element("h2", "How far from the paper's settings"),
        *_deviations(report),
    ]
    if any(run.asked_for for run in report.runs):
        sections += [element("h2", "Evaluated on request"), _scrolled(tables.asked_for_table(report))]
    for setting in settings:
        sections.append(element("h2", f"The paper's table: {setting_name(setting)}"))
        members = [each for each in groups if each.setting == setting]
        sections.append(_scrolled(tables.papers_table(setting, members), is_narrow=setting != "imagenet"))
    sections += _figures("Curves", pictures.curves, _what_curves_are(report))
    sections += _figures("Error against size", pictures.tradeoffs, _WHAT_TRADEOFFS_ARE if settings else "")
    sections += _figures("Feature reuse", pictures.reuse, "")
    sections += [element("h2", "Runs and their time"), _scrolled(tables.runs_table(report))]
    if pictures.ledger is not None:
        sections += [_figure_grid([pictures.ledger]), _scrolled(tables.ledger_table(report))]
    sections += _what_happened(report)
    return [*sections, *_stages(report)]


_WHAT_TRADEOFFS_ARE: Final = (
    "As in the paper's Figures 3 and 4, with those points alone whose errors are printed somewhere: in the paper's "
    "tables and in the two READMEs named below. The paper prints none for DenseNet-B and DenseNet-C, nor the figures' "
    "other points. Parameters and multiply-adds are counted from the networks."
)


def _missing(report: Report, pictures: Pictures) -> Markup:
    if not report.missing and not pictures.missing:
        return Markup("")
    parts = [element("h2", "What is missing")]
    for name, said in report.missing.items():
        parts += [element("h3", name), tables.sentences(said)]
    if pictures.missing:
        parts += [element("h3", "Figures"), tables.sentences(pictures.missing)]
    return element("section", *parts, class_="missing")


def _what_errors_are(report: Report) -> str:
    of_test = [run.name for run in report.runs if run.test is not None]
    said = "Errors are those of the last evaluation, not of the best one; in brackets, ours less the paper's."
    if of_test:
        said += f" Of {', '.join(of_test)} they are the test set's, which was shown to the network once, at the end."
    if any(len(compared.group.runs) > 1 for compared in report.groups):
        said += " Of runs that differ in their seed alone: mean ± standard deviation of the finished ones."
    return said


def _what_curves_are(report: Report) -> str:
    said = []
    if len(report.groups) > MAX_DRAWN:
        said.append(f"Drawn are the first {MAX_DRAWN} of {len(report.groups)}; the tables have them all.")
    if any(len(compared.group.runs) > 1 for compared in report.groups):
        said.append(
            "Of runs that differ in their seed alone, the line is their mean; the band goes from lowest to highest."
        )
    return " ".join(said)


def _deviations(report: Report) -> Sequence[Markup]:
    parts: list[Markup] = []
    for compared in report.groups:
        parts.append(element("h3", compared.group.label))
        if compared.deviations:
            parts.append(tables.sentences(compared.deviations))
        elif compared.group.numerics is None:
            parts.append(element("p", "Not known, without its plan."))
        else:
            parts.append(element("p", "None: its settings are the paper's."))
    return parts


def _figures(title: str, pictures: Sequence[Picture], introduction: str) -> Sequence[Markup]:
    if not pictures:
        return ()
    said = [element("p", introduction)] if introduction else []
    return [element("h2", title), *said, _figure_grid(pictures)]


def _figure_grid(pictures: Sequence[Picture]) -> Markup:
    return element("div", *map(_figure, pictures), class_="figures")


def _figure(picture: Picture) -> Markup:
    image = void_element(
        "img",
        src=f"data:image/png;base64,{b64encode(picture.png).decode()}",
        alt=picture.alternative,
        width=str(picture.width * _CSS_PIXELS_PER_INCH // DOTS_PER_INCH),
        height=str(picture.height * _CSS_PIXELS_PER_INCH // DOTS_PER_INCH),
    )
    caption = element("figcaption", picture.caption) if picture.caption else text("")
    return element("figure", image, caption)


def _scrolled(table: Markup, *, is_narrow: bool = False) -> Markup:
    """A table that is moved by itself where the page is narrower, or, with many columns, becomes cards."""
    return element("div", table, class_="wide narrow" if is_narrow else "wide")


def _what_happened(report: Report) -> Sequence[Markup]:
    told = [run for run in report.runs if run.news]
    if not told:
        return ()
    parts = [element("h2", "What happened")]
    for run in told:
        news = element("div", tables.news_table(run), class_="wide narrow texts")
        parts.append(element("details", element("summary", f"{run.name}: {len(run.news)} events"), news))
    return parts


def _stages(report: Report) -> Sequence[Markup]:
    networks = {
        each.group.numerics.model.name: each
        for each in report.groups
        if each.group.numerics is not None and each.cost is not None and each.cost.rows
    }
    if not networks:
        return ()
    parts = [element("h2", "Networks, stage by stage")]
    for name, compared in networks.items():
        stages = element("div", tables.stages_table(compared), class_="wide texts")
        parts.append(element("details", element("summary", name), stages))
    return parts
