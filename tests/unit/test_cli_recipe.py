"""`dnctl recipe`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.recipe import app
from orchestrator.errors import PlanError, RecipeError
from orchestrator.recipe.library import shipped_recipes
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.reference import editor_schema, recipe_keys


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_list_names_the_recipes_that_ship():
    assert "densenet264" in run("list")
    names = [recipe["name"] for recipe in json.loads(run("list", "--json"))]
    assert names[:5] == ["demo", "densenet121", "densenet169", "densenet201", "densenet264"]
    assert names == [file.stem for file in shipped_recipes()]


def test_show_prints_a_recipe_that_needs_no_other_file(tmp_path: Path):
    shown = tmp_path / "shown.yaml"
    shown.write_text(run("show", "densenet169", "--set", "train.epochs=30"))
    assert "extends" not in shown.read_text()
    assert load_recipe(shown) == load_recipe("densenet169", ["train.epochs=30"])


def test_show_as_json_has_every_key():
    document = json.loads(run("show", "densenet169", "--json"))
    assert document["train"]["optimizer"] == {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}


def test_validate_says_that_a_recipe_is_valid():
    assert run("validate", "densenet169") == "densenet169 is a valid recipe.\n"
    assert json.loads(run("validate", "densenet169", "--json"))["valid"] is True


@pytest.mark.parametrize(
    ("override", "error"), [("train.epoch=3", RecipeError), ("model.name=densenet170", PlanError)], ids=["key", "model"]
)
def test_validate_refuses_what_is_wrong_anywhere(override: str, error: type[Exception]):
    with pytest.raises(error, match=override):
        run("validate", "densenet169", "--set", override)


def test_schema_describes_every_key():
    printed = " ".join(run("schema").split())
    for key in recipe_keys().values():
        assert key.key in printed
        assert " ".join(key.description.split()) in printed


def test_schema_as_json_is_the_editors():
    assert json.loads(run("schema", "--json")) == editor_schema()
