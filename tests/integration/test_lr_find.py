"""The range test finds a rate that trains and the one that is too much, by the loop's own step."""

import itertools
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from tests.training import SMALL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _find(images: Path, *arguments: str):
    settings = [part for key in (f"data.root={images}", *SMALL) for part in ("--set", key)]
    return CliRunner().invoke(app, ["lr-find", "demo", *settings, *arguments])


def test_the_rate_grows_by_a_factor_and_the_loss_ends_the_test(small_images: Path) -> None:
    result = _find(small_images, "--steps", "24", "--from", "0.001", "--to", "1e6", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    rates = [point["learning_rate"] for point in document["points"]]
    assert rates[0] == 0.001
    factors = [later / earlier for earlier, later in itertools.pairwise(rates)]
    assert factors == pytest.approx([1e9 ** (1 / 23)] * len(factors))
    assert document["diverged_at"] is not None
    assert len(rates) < 24
    lowest = min(document["points"], key=lambda point: point["smoothed_loss"])
    assert document["lowest_loss_at"] == lowest["learning_rate"]
    assert document["suggested"] == pytest.approx(lowest["learning_rate"] / 10)
    assert _find(small_images, "--steps", "24", "--from", "0.001", "--to", "1e6", "--json").stdout == result.stdout


def test_a_person_sees_the_curve_and_what_to_take(small_images: Path) -> None:
    result = _find(small_images, "--steps", "10", "--from", "0.001", "--to", "0.1")
    assert "The smoothed loss was lowest at" in result.stdout
    assert "never exploded" in result.stdout
    assert "█" in result.stdout


def test_a_range_upside_down_is_refused(small_images: Path) -> None:
    result = _find(small_images, "--from", "1", "--to", "0.1")
    assert "--from 1 must be below --to 0.1" in str(result.exception)
