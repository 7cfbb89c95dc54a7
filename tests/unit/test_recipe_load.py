"""Loading recipes: YAML 1.2, overrides, variables, inheritance."""

from pathlib import Path

import pytest

from orchestrator.errors import RecipeError
from orchestrator.recipe.load import dump_recipe, load_recipe
from orchestrator.recipe.schema import Recipe

MINIMAL = """
model:
  name: densenet121
train:
  epochs: 3
  global_batch_size: 8
  batch_norm_groups: 2
  optimizer: {lr: 0.1}
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def load(folder: Path, *overrides: str, text: str = MINIMAL, environment: dict[str, str] | None = None) -> Recipe:
    return load_recipe(write(folder, text), overrides, environment=environment or {})


def test_a_run_is_called_after_the_file_unless_the_recipe_says_otherwise(tmp_path: Path):
    assert load(tmp_path).name == "mine"
    assert load(tmp_path, "name=other").name == "other"


def test_numbers_are_read_as_yaml_1_2_has_them(tmp_path: Path):
    recipe = load(tmp_path, "train.optimizer.weight_decay=1e-4", "train.epochs=0x10", "seed=1_000", "name=no")
    assert recipe.train.optimizer.weight_decay == 1e-4
    assert (recipe.train.epochs, recipe.seed, recipe.name) == (16, 1000, "no")


def test_the_later_override_wins(tmp_path: Path):
    assert load(tmp_path, "train.epochs=5", "train.epochs=7").train.epochs == 7


def test_an_override_makes_the_sections_that_the_file_lacks(tmp_path: Path):
    recipe = load(tmp_path, "train.schedule.milestones=[1/3, 2/3]", "data.train.mirror=0")
    assert recipe.train.schedule.milestones == (1 / 3, 2 / 3)
    assert recipe.data.train.mirror == 0


def test_milestones_are_epochs_or_fractions(tmp_path: Path):
    assert load(tmp_path, "train.schedule.milestones=[1, 2]").train.schedule.milestones == (1, 2)
    assert load(tmp_path, "train.schedule.milestones=[0.5, 3/4]").train.schedule.milestones == (0.5, 0.75)


def test_variables_are_replaced_in_paths(tmp_path: Path):
    environment = {"DATA": "/data", "HOME": "/home/me"}
    assert load(tmp_path, "data.root=${DATA}/imagenet", environment=environment).data.root == "/data/imagenet"
    assert load(tmp_path, "data.root=~/imagenet", environment=environment).data.root == "/home/me/imagenet"


def test_a_variable_that_is_not_set_is_named(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"data\.root: found '\$\{NOWHERE\}/x', but NOWHERE is not set"):
        load(tmp_path, "data.root=${NOWHERE}/x")


def test_variables_outside_of_paths_are_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"model\.name: .* replaced in paths alone"):
        load(tmp_path, "model.name=${NET}", environment={"NET": "densenet121"})


def test_a_file_takes_from_another_what_it_does_not_say(tmp_path: Path):
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", MINIMAL)
    child = write(tmp_path, "extends: base/mine.yaml\ntrain: {epochs: 9}\n", "child.yaml")
    recipe = load_recipe(child)
    assert recipe.name == "child"
    assert (recipe.train.epochs, recipe.train.global_batch_size) == (9, 8)


def test_files_that_extend_each_other_are_refused(tmp_path: Path):
    write(tmp_path, "extends: b.yaml\n", "a.yaml")
    write(tmp_path, "extends: a.yaml\n", "b.yaml")
    with pytest.raises(RecipeError, match=r"b\.yaml:1: extends: found 'a\.yaml', which extends this file"):
        load_recipe(tmp_path / "a.yaml")


def test_extending_a_file_that_is_not_there_is_a_fault_with_its_line(tmp_path: Path):
    path = write(tmp_path, MINIMAL + "extends: nowhere.yaml\n")
    with pytest.raises(RecipeError, match=r"mine\.yaml:9: extends: found 'nowhere\.yaml'"):
        load_recipe(path)


def test_a_recipe_written_out_loads_as_an_equal_recipe(tmp_path: Path):
    recipe = load(tmp_path, "train.schedule.milestones=[1/3]", "data.root=/ä b", "train.optimizer.lr=1e-7")
    assert load_recipe(write(tmp_path, dump_recipe(recipe), "again.yaml")) == recipe


def test_a_recipe_knows_where_each_key_was_written(tmp_path: Path):
    recipe = load(tmp_path, "cluster.workers=2")
    assert recipe.where("train.epochs").endswith("mine.yaml:5: train.epochs")
    assert recipe.where("cluster.workers") == "--set cluster.workers=2: cluster.workers"
    assert recipe.where("seed") == "seed"


def test_recipes_that_ship_are_found_by_name():
    assert load_recipe("densenet169").model.name == "densenet169"


def test_a_recipe_that_is_not_there_names_those_that_ship():
    with pytest.raises(RecipeError, match=r"There is no recipe densenet170: no file of that name, and .*densenet169"):
        load_recipe("densenet170")


def test_a_folder_is_no_recipe(tmp_path: Path):
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused_like_any_other(name: str):
    with pytest.raises(RecipeError, match="There is no recipe"):
        load_recipe(name)


def test_a_shipped_name_is_not_mistaken_for_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_recipe("demo").name == "demo"


def test_of_several_files_that_one_extends_the_later_hold_over_the_earlier(tmp_path: Path):
    write(tmp_path, MINIMAL, "first.yaml")
    write(tmp_path, "seed: 5\ntrain: {epochs: 7}\n", "second.yaml")
    both = write(tmp_path, "extends: [first.yaml, second.yaml]\ntrain: {epochs: 9}\n", "both.yaml")
    recipe = load_recipe(both)
    assert (recipe.seed, recipe.train.epochs) == (5, 9)
    assert recipe.model == load_recipe(tmp_path / "first.yaml").model
    lost = write(tmp_path, "extends: [first.yaml, nowhere.yaml]\n", "lost.yaml")
    with pytest.raises(RecipeError, match=r"lost\.yaml:1: extends: found 'nowhere\.yaml'"):
        load_recipe(lost)
