"""The page of a report: escaped, self-contained, light, and legible in a real browser on a desk and on a phone."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.plan.networks import find_architecture
from orchestrator.plan.plan import Deviation
from orchestrator.report.figures.style import Picture
from orchestrator.report.markup import element, joined, text
from orchestrator.report.page import Pictures, report_page
from orchestrator.report.tradeoff import papers_lines
from orchestrator.report.write import Written, write_report
from orchestrator.run.directory import RunDirectory
from orchestrator.run.evaluations import KeptEvaluation, keep_evaluation
from orchestrator.run.state import State, write_state
from tests import browser
from tests.report_runs import densenet_weights, make_run, write_log

EVIL = "<script>alert('$x$')</script>\"&"


def _write(runs: list[RunDirectory], folder: Path) -> Written:
    return write_report(runs, folder, progress=lambda *_: None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Three seeds of a network, a deviating run of another one, and one on ImageNet that isn't finished."""
    root = tmp_path_factory.mktemp("runs")
    weights = densenet_weights(find_architecture("densenet40_12"))
    runs = [
        make_run(
            root, f"family.seed{seed}", "densenet40_12_c10plus", f"seed={seed}", "train.epochs=20", weights=weights
        )
        for seed in range(3)
    ]
    deviation = Deviation(step=5, changes=(("gamma", "0.1", "0.2"),), numerics_before="x", plan_before="plan-0.json")
    short = ("train.epochs=10", "train.precision=bf16")
    runs.append(make_run(root, "short", "densenetbc100_12_c10plus", *short, interrupted_at=0.5, deviations=[deviation]))
    runs.append(make_run(root, "imagenet", "densenet121", epochs_done=6, state=State.STOPPED))
    ten_crops = KeptEvaluation(
        checkpoint="step-00030030.1", step=30_030, crops=10, num_images=50_000, correct1=30_000, correct5=45_000
    )
    keep_evaluation(runs[-1].evaluations, ten_crops)
    return _write(runs, root / "report")


class _Page(HTMLParser):
    """Elements, and the attributes that could fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag == "img":
            self.images.append(dict(attrs))


def test_a_page_has_every_figure_in_it_and_fetches_nothing(written: Written):
    page = written.html.read_text()
    parsed = _Page(page)
    assert "script" not in parsed.tags
    assert "link" not in parsed.tags
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert len(parsed.images) == len(written.figures) == 11
    assert "@import" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_every_figure_is_a_png_of_its_own_and_is_told_in_words(written: Written):
    for image in _Page(written.html.read_text()).images:
        assert len(image["alt"] or "") > 20
    for path in written.figures.values():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width == 1000


def test_a_page_is_light(written: Written):
    assert written.html.stat().st_size < 600_000


def test_the_papers_row_stands_above_ours_with_the_difference(written: Written):
    rows = re.findall(r"<tr.*?</tr>", written.html.read_text())
    plain = [re.sub(r"<[^>]+>", "|", row).replace("||", "|") for row in rows]
    at = next(number for number, row in enumerate(plain) if row.startswith("|DenseNet (k=12)|40|1.0M|5.24|"))
    assert plain[at + 1].startswith("|family (seeds 0, 1, 2)|–|1.0M|5.21 ± 0.00|")
    assert "\N{MINUS SIGN}0.03" in plain[at + 1]


def test_ten_crops_that_somebody_asked_for_stand_in_the_papers_table(written: Written):
    rows = re.findall(r"<tr.*?</tr>", written.html.read_text())
    plain = [re.sub(r"<[^>]+>", "|", row).replace("||", "|") for row in rows]
    assert "|imagenet|30,030|10|50,000|40.00|10.00|" in plain
    assert any(re.match(r"\|imagenet\|[0-9.]+\|40\.00\|[0-9.]+\|10\.00\|", row) for row in plain)


def test_a_page_says_how_far_a_run_is_from_the_papers_settings(written: Written):
    page = written.html.read_text()
    assert "It is planned for 10 epochs instead of 300" in page
    assert "computed in bf16 instead of fp32" in page
    assert "Changed on resume, after 0.006394 epochs (step 5): gamma 0.1 became 0.2." in page
    assert "STOPPED at step 30,030 of 450,450" in page


def test_whatever_a_run_says_of_itself_is_escaped(tmp_path: Path):
    run = make_run(tmp_path, f"_{EVIL.replace('/', '')}", "densenet40_12_c10plus", "train.epochs=2", epochs_done=1)
    write_state(run.state, replace(run.read_state(), reason=EVIL))
    attempt = run.claim_attempt("another")
    write_log(attempt, "events", [{"time": 1.0, "event": EVIL, EVIL: EVIL}])
    (attempt.path / "worker-failure-1.json").write_text(
        '{"format_version": 1, "reason": "' + EVIL.replace('"', "") + '"}'
    )
    page = _write([run], tmp_path / "report").html.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;$x$&#x27;)&lt;/script&gt;" in page
    _Page(page)


def test_markup_escapes_text_once_and_itself_never():
    assert text("a < b & 'c'") == "a &lt; b &amp; &#x27;c&#x27;"
    inner = element("b", "<")
    assert joined(inner, "<") == "<b>&lt;</b>&lt;"
    assert element("p", inner, class_='"', title=None) == '<p class="&quot;"><b>&lt;</b></p>'


def test_a_run_of_which_nothing_is_known_still_has_a_page(tmp_path: Path):
    run = RunDirectory(tmp_path / "nothing")
    run.create(now=1.0)
    written = _write([run], tmp_path / "report")
    assert "hasn&#x27;t begun to train" in written.html.read_text()


def test_a_page_says_how_many_curves_it_leaves_out(written: Written):
    many = replace(written.report, groups=[written.report.groups[0]] * 15)
    curve = Picture(name="loss", title="", png=b"", alternative="", width=1, height=1)
    page = report_page(many, Pictures(curves=[curve], tradeoffs=(), reuse=(), ledger=None, missing=()))
    assert "Drawn are the first 14 of 15; the tables have them all." in page
    assert "Drawn are" not in written.html.read_text()


def test_points_of_the_paper_are_those_that_have_a_source():
    def points(setting):
        return {line.label: {point.name: point.error for point in line.points} for line in papers_lines(setting)}

    imagenet = points("imagenet")
    assert imagenet["DenseNet-BC, Table 3"] == {
        "densenet121": 25.02,
        "densenet169": 23.80,
        "densenet201": 22.58,
        "densenet264": 22.15,
    }
    assert imagenet["ResNet, Torch code's README"] == {
        "resnet18": 30.41,
        "resnet34": 26.73,
        "resnet50": 24.01,
        "resnet101": 22.44,
    }
    on_c10plus = points("c10plus")
    assert on_c10plus["ResNet (pre-activation), Table 2"] == {"preresnet164": 5.46, "preresnet1001": 4.62}
    assert len(on_c10plus["DenseNet-BC, Table 2"]) == len(on_c10plus["DenseNet, Table 2"]) == 3
    assert [line.label for line in papers_lines("svhn")] == ["DenseNet, Table 2", "DenseNet-BC, Table 2"]
    counts = {point.name: point.cost.num_parameters for line in papers_lines("c10plus") for point in line.points}
    assert (counts["densenet40_12"], counts["densenetbc190_40"]) == (1_019_722, 25_624_430)


_MEASURES = """<script>
const root = document.documentElement, images = [...document.images];
root.dataset.measured = JSON.stringify([
  window.innerWidth, root.scrollWidth - root.clientWidth, images.filter(image => image.naturalWidth > 0).length,
  Math.max(...images.map(image => image.getBoundingClientRect().right - root.clientWidth))]);
</script>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [500, 1280])
def test_in_a_browser_all_figures_are_shown_and_nothing_runs_over_the_edge(
    written: Written, tmp_path: Path, width: int
):
    page = re.sub(r"<meta http-equiv[^>]+>", "", written.html.read_text())
    measuring = tmp_path / "measuring.html"
    measuring.write_text(page.replace("</body>", f"{_MEASURES}</body>"))
    measured = re.search(r'data-measured="\[([^\]]+)\]"', browser.shown(measuring, width=width))
    assert measured is not None
    inner_width, overflow, num_shown, beyond = map(float, measured[1].split(","))
    assert (inner_width, overflow, num_shown) == (width, 0, len(written.figures))
    assert beyond <= 0


@pytest.mark.browser
def test_a_browser_that_may_fetch_nothing_draws_the_page(written: Written, tmp_path: Path):
    picture = tmp_path / "page.png"
    browser.screenshot(written.html, picture, width=1280, height=4000)
    with Image.open(picture) as drawn:
        colors = {color for _, color in drawn.convert("RGB").getcolors(1 << 24)}
    assert {(0, 114, 178), (213, 94, 0)} <= colors, "no line in the colours of the figures"


def test_a_run_of_ten_crops_alone_has_no_point_and_the_page_says_how_it_gets_one(tmp_path: Path):
    run = make_run(tmp_path, "ten", "densenet121", "train.epochs=3", "data.eval.crops=10", final_error=26.0)
    written = _write([run], tmp_path / "report")
    assert any("ten has no point" in said and "dnctl eval ten --crops 1" in said for said in written.missing_figures)
    assert "ten has no point in error against size" in written.html.read_text()
