"""The recipes that ship: they load, they are the paper's, and what is made from the schema is up to date."""

import json

import jsonschema
import pytest
from ruamel.yaml import YAML

from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.footprint import footprint
from orchestrator.plan.networks import NETWORKS
from orchestrator.plan.paper import DENSENET_ROWS, WIDE_ROWS, Setting, SmallImagesRow
from orchestrator.plan.resolve import resolve
from orchestrator.recipe.__main__ import documented, schema_text
from orchestrator.recipe.library import find_recipe, recipes_dir, shipped_recipes
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


SETTINGS = {
    "c10": ("cifar10", 10, 300, (0, 0.0)),
    "c10plus": ("cifar10", 10, 300, (4, 0.5)),
    "c100": ("cifar100", 100, 300, (0, 0.0)),
    "c100plus": ("cifar100", 100, 300, (4, 0.5)),
    "svhn": ("svhn", 10, 40, (0, 0.0)),
}
ROWS = [
    pytest.param(row, setting, id=f"{row.network}_{setting}")
    for row in (*DENSENET_ROWS, *WIDE_ROWS)
    for setting, error in row.errors.items()
    if error is not None
]


@pytest.mark.parametrize(("row", "setting"), ROWS)
def test_every_densenet_of_table_2_has_a_recipe_that_is_the_papers_setting(row: SmallImagesRow, setting: Setting):
    data_name, classes, epochs, augmentation = SETTINGS[setting]
    recipe = load_recipe(f"{row.network}_{setting}")
    train, data = recipe.train, recipe.data
    assert recipe.model.name == row.network
    assert recipe.model.drop_rate == (0.0 if augmentation[0] else 0.2)
    assert (train.epochs, train.global_batch_size, train.batch_norm_groups, train.precision) == (epochs, 64, 1, "fp32")
    assert train.optimizer == Optimizer(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    assert (train.schedule.milestones, train.schedule.gamma, train.schedule.warmup_epochs) == ((0.5, 0.75), 0.1, 0)
    assert (data.train.image_size, data.train.crop, data.train.color) == (32, "pad", None)
    assert (data.train.padding, data.train.mirror) == augmentation
    assert (data.eval.resize, data.eval.crop, data.eval.crops) == (None, 32, 1)
    assert data.expected is not None
    assert data.expected.classes == classes
    if setting == "svhn":
        assert (data.mean, data.std, data.holdout, recipe.eval.test) == ((0, 0, 0), (1, 1, 1), 6000, "best")
    else:
        assert (data.expected.train_images, data.expected.val_images, data.holdout) == (50_000, 10_000, 0)
    head = find_recipe(f"{row.network}_{setting}").read_text()
    assert f"{row.errors[setting]:.2f} %" in head
    assert f"{footprint(NETWORKS[row.network], num_classes=classes, image_size=32).num_parameters:,} parameters" in head
    assert f"data.root=/path/to/{data_name}" in head


def test_the_rows_of_table_2_have_the_printed_parameter_counts():
    for row in (*DENSENET_ROWS, *WIDE_ROWS):
        count = footprint(NETWORKS[row.network], num_classes=10, image_size=32).num_parameters
        assert f"{count / 1e6:.1f}M" == row.parameters


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_resnets_differ_from_densenets_in_the_network_alone(name: str):
    recipe, first = load_recipe(name), load_recipe(IMAGENET[0])
    assert recipe.model_copy(update={"name": first.name, "model": first.model}) == first
    assert (recipe.model.name, recipe.model.options) == (f"timm:{name}", {"zero_init_last": False})


@pytest.mark.parametrize("name", [path.stem for path in shipped_recipes() if path.parent.name == "table2"])
def test_every_recipe_of_table_2_can_be_planned(name: str):
    recipe = load_recipe(name)
    plan = resolve(recipe, cluster=ClusterShape(num_cpus=2), dataset=None, versions={}, loader_available="pytorch")
    assert plan.numerics.model.architecture is not None
    assert plan.estimate.memory is not None
    halves = [step / plan.numerics.num_steps for step in plan.numerics.milestones_steps]
    assert halves == pytest.approx([0.5, 0.75], abs=1e-4)


def test_rows_differ_from_each_other_by_their_base_and_their_network_alone():
    for path in sorted(recipes_dir().glob("table2/densenet*.yaml")):
        document = YAML(typ="safe").load(path.read_text())
        assert document.keys() == {"extends", "name", "model"}
        assert document["model"].keys() == {"name"}


def test_plain_crop_and_mirror_are_one_switch_away():
    assert load_recipe(IMAGENET[0], ["data.train.color=null"]).data.train.color is None


@pytest.mark.parametrize("name", IMAGENET)
def test_the_imagenet_recipes_differ_in_the_network_alone(name: str):
    recipe, first = load_recipe(name), load_recipe(IMAGENET[0])
    assert recipe.model_copy(update={"name": first.name, "model": first.model}) == first


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.stem)
def test_the_head_of_each_recipe_gives_the_command_the_cost_and_the_papers_figures(path):
    head = path.read_text().partition("\nname:")[0]
    assert f"dnctl launch recipes/{path.relative_to(recipes_dir())}" in head
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
