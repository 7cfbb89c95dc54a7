"""`dnctl model` prints exact counts, for people and for programs, and lists without torch."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from orchestrator.cli.model import app
from orchestrator.errors import NotFoundError


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_list_has_the_exact_parameter_counts():
    models = {model["name"]: model for model in json.loads(run("list", "--json"))}
    assert models["densenet121"]["num_parameters"] == 7_978_856
    assert models["densenet264"]["num_parameters"] == 33_337_704
    assert models["densenet169"]["block_config"] == [6, 12, 32, 32]


def test_list_needs_neither_torch_nor_timm():
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'timm', 'torchvision', 'ray', 'nvidia')))\n"
        "from orchestrator.cli.model import app\n"
        "app(['list', '--json'])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(json.loads(result.stdout)) >= 6


def test_show_prints_a_table_whose_numbers_are_whole_in_80_columns():
    table = run("show", "densenet121")
    for number in ("7,978,856", "2,834.2 M", "256x56x56", "124.3 MiB"):
        assert number in table


def test_show_as_json_has_rows_that_sum_to_the_totals():
    model = json.loads(run("show", "densenet_demo", "--num-classes", "100", "--image-size", "64", "--json"))
    assert (model["num_classes"], model["image_size"]) == (100, 64)
    for total in ("num_parameters", "num_multiply_adds"):
        assert model[total] == sum(row[total] for row in model["rows"])
    kept = model["activation_bytes_per_image"]["bf16"]
    assert kept["memory_efficient"] < kept["kept"]


def test_show_measures_timm_s_models():
    model = json.loads(run("show", "timm:densenet121", "--json"))
    assert model["num_parameters"] == 7_978_856
    assert model["num_multiply_adds"] == json.loads(run("show", "densenet121", "--json"))["num_multiply_adds"]


def test_an_unknown_name_brings_the_nearest_ones():
    with pytest.raises(NotFoundError, match="densenet121"):
        run("show", "densnet121")
