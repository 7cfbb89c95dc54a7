"""The recipes that ship: they load, they are the paper's, and what is made from the schema is up to date."""

import json

import jsonschema
import pytest
from ruamel.yaml import YAML

from orchestrator.recipe.__main__ import documented, schema_text
from orchestrator.recipe.library import recipes_dir, shipped_recipes
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.reference import recipe_keys
from orchestrator.recipe.schema import Color, Expected, Optimizer

IMAGENET = ["densenet121", "densenet169", "densenet201", "densenet264"]
HOW_TO_MAKE = "run `python -m orchestrator.recipe`"


@pytest.mark.parametrize("name", [path.stem for path in shipped_recipes()])
def test_every_recipe_loads_and_is_called_after_its_file(name: str):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", IMAGENET)
def test_the_imagenet_recipes_are_the_papers_setting(name: str):
    recipe = load_recipe(name)
    train, data, model = recipe.train, recipe.data, recipe.model
    assert (model.name, model.init, model.drop_rate) == (name, "authors", 0)
    assert (train.epochs, train.global_batch_size, train.batch_norm_groups, train.precision) == (90, 256, 4, "fp32")
    assert train.optimizer == Optimizer(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    assert [milestone * train.epochs for milestone in train.schedule.milestones] == [30, 60]
    assert (train.schedule.gamma, train.schedule.warmup_epochs) == (0.1, 0)
    assert (train.label_smoothing, train.clip_grad_norm) == (0, None)
    assert (data.train.crop, data.train.scale, data.train.ratio) == ("torch", (0.08, 1), (3 / 4, 4 / 3))
    assert (data.train.image_size, data.train.interpolation, data.train.mirror) == (224, "bicubic", 0.5)
    assert data.train.color == Color(jitter=0.4, lighting=0.1)
    assert (data.eval.resize, data.eval.crop, data.eval.interpolation) == (256, 224, "bicubic")
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert data.expected == Expected(train_images=1_281_167, val_images=50_000, classes=1000)


def test_plain_crop_and_mirror_are_one_switch_away():
    assert load_recipe(IMAGENET[0], ["data.train.color=null"]).data.train.color is None


@pytest.mark.parametrize("name", IMAGENET)
def test_the_imagenet_recipes_differ_in_the_network_alone(name: str):
    recipe, first = load_recipe(name), load_recipe(IMAGENET[0])
    assert recipe.model_copy(update={"name": first.name, "model": first.model}) == first


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.stem)
def test_the_head_of_each_recipe_gives_the_command_the_cost_and_the_papers_figures(path):
    head = path.read_text().partition("\nname:")[0]
    assert f"dnctl launch recipes/{path.name}" in head
    if path.stem in IMAGENET:
        for words in ("GPU hours", "estimated", "top-1", "top-5"):
            assert words in head


def test_the_editor_schema_is_up_to_date():
    assert (recipes_dir() / "schema.json").read_text() == schema_text(), HOW_TO_MAKE


def test_the_documented_keys_are_up_to_date():
    page = (recipes_dir().parent / "docs" / "recipes.md").read_text()
    assert page == documented(page), HOW_TO_MAKE


def test_the_editor_schema_accepts_every_file_and_refuses_unknown_keys():
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for path in recipes_dir().rglob("*.yaml"):
        jsonschema.validate(YAML(typ="safe").load(path.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"train": {"epoch": 3}}, schema)


def test_every_key_is_described():
    assert all(key.description.endswith(".") for key in recipe_keys().values())
