"""`dnctl report` as a person and a script see it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.run.state import State
from tests.report_runs import make_run

SHORT = "train.epochs=4"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A family of two seeds, and a run on ImageNet."""
    root = tmp_path / "runs"
    for seed, error in enumerate((5.0, 6.0)):
        make_run(root, f"fam.seed{seed}", "densenet40_12_c10plus", SHORT, f"seed={seed}", final_error=error)
    make_run(root, "im", "densenet121", SHORT, final_error=30.0, epochs_done=2, state=State.STOPPED)
    return root


def _dnctl(*arguments: str):
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result


def test_a_run_is_reported_in_its_own_folder_and_what_to_open_is_said(runs: Path):
    result = _dnctl("report", "im")
    page = runs / "im" / "report" / "report.html"
    assert f"Open in a browser: {page}" in result.stdout
    assert "It is planned for 4 epochs instead of 90, 4.44 % of the paper's training." in result.stdout
    assert "Its figures are those of 2 of 4 epochs: no result yet." in result.stdout
    assert "im: It isn't finished: STOPPED" in result.stderr
    assert page.is_file()
    assert {path.stem for path in page.parent.glob("*.png")} >= {"loss", "top1", "top5", "learning-rate", "throughput"}


def test_a_sweeps_name_stands_for_its_runs(runs: Path):
    document = json.loads(_dnctl("report", "fam", "--json").stdout)
    assert document["html"] == str(runs / "reports" / "fam" / "report.html")
    (group,) = document["groups"]
    assert group["runs"] == ["fam.seed0", "fam.seed1"]
    assert group["top1_error"]["count"] == 2
    assert group["top1_error"]["deviation"] == pytest.approx(0.7054, abs=1e-3)
    assert group["paper"] == {"source": "Table 2", "top1": 5.24, "top5": None}
    assert group["difference"] == pytest.approx(group["top1_error"]["mean"] - 5.24)
    assert group["num_parameters"] == 1_019_722
    assert group["setting"] == "C10+"
    assert group["deviations"][0].startswith("It is planned for 4 epochs instead of 300")


def test_json_is_one_document_with_paths_that_exist(runs: Path, tmp_path: Path):
    result = _dnctl("report", "fam.seed0", "im", "--json", "--out", str(tmp_path / "there"))
    document = json.loads(result.stdout)
    assert result.stderr == ""
    for path in (document["html"], *document["figures"].values()):
        assert Path(path).parent == tmp_path / "there"
        assert Path(path).is_file()
    assert [run["run"] for run in document["runs"]] == ["fam.seed0", "im"]
    assert document["runs"][0]["missing"] == []
    assert document["runs"][0]["ledger"].keys() >= {"compute", "recomputation", "idle"}
    assert "STOPPED" in document["runs"][1]["missing"][0]
    assert document["missing_figures"] == [
        "fam.seed0 has no heat map of feature reuse: it has no checkpoint yet.",
        "im has no heat map of feature reuse: it has no checkpoint yet.",
    ]


def test_a_run_that_is_named_twice_is_reported_once(runs: Path):
    document = json.loads(_dnctl("report", "fam", "fam.seed1", "--json").stdout)
    assert [run["run"] for run in document["runs"]] == ["fam.seed0", "fam.seed1"]


def test_no_such_run_ends_with_3_and_an_ambiguous_one_with_2(runs: Path):
    with pytest.raises(NotFoundError, match="there is no run 'nosuch'") as none:
        CliRunner().invoke(app, ["report", "nosuch"], catch_exceptions=False)
    with pytest.raises(UsageError, match="could be any of 2 runs") as several:
        CliRunner().invoke(app, ["report", "fam.seed"], catch_exceptions=False)
    assert (none.value.exit_code, several.value.exit_code) == (3, 2)
    assert not (runs / "reports").exists()
