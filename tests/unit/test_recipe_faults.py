"""What is said of recipes that can't be: every fault, each with place, key, what was found and what is allowed."""

import re
from pathlib import Path

import pytest

from orchestrator.errors import RecipeError
from orchestrator.recipe.load import load_recipe

VALID = """\
model:
  name: densenet121
train:
  epochs: 3
  global_batch_size: 8
  batch_norm_groups: 2
  optimizer:
    lr: 0.1
"""


def faults(folder: Path, text: str, *overrides: str) -> list[str]:
    """The lines of the error, without the folder and without the heading of several."""
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides, environment={})
    assert caught.value.exit_code == 2
    lines = str(caught.value).replace(f"{folder}/", "").splitlines()
    return [line.strip() for line in lines if not re.fullmatch(r"The recipe has \d+ faults:", line)]


def test_an_unknown_key_comes_with_its_line_the_nearest_key_and_those_allowed(tmp_path: Path):
    (fault,) = faults(tmp_path, VALID.replace("train:\n", "train:\n  epoch: 3\n"))
    assert fault.startswith('x.yaml:4: train.epoch: unknown key; did you mean "epochs"? allowed in train: epochs, ')


def test_an_unknown_key_that_is_like_one_word_of_a_valid_one_is_sent_there(tmp_path: Path):
    (fault,) = faults(tmp_path, VALID.replace("train:\n", "train:\n  gobal: 3\n"))
    assert 'did you mean "global_batch_size"?' in fault


def test_a_key_in_the_wrong_section_is_sent_to_the_right_one(tmp_path: Path):
    (fault,) = faults(tmp_path, VALID + "momentum: 0.9\n")
    assert fault.startswith('x.yaml:9: momentum: unknown key; did you mean "train.optimizer.momentum"? allowed here: ')


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.epochs", "ninety", 'found "ninety"; allowed: a whole number at least 1 and at most 100000'),
        ("train.epochs", "'3'", 'found "3"; allowed: a whole number at least 1 and at most 100000'),
        ("train.epochs", "0", "found 0; allowed: a whole number at least 1 and at most 100000"),
        ("train.epochs", "2.5", "found 2.5; allowed: a whole number at least 1 and at most 100000"),
        ("train.epochs", "true", "found true; allowed: a whole number at least 1 and at most 100000"),
        ("train.epochs", "", "found null; allowed: a whole number at least 1 and at most 100000"),
        ("train.deterministic", "yes", 'found "yes"; allowed: true or false'),
        ("train.precision", "fp8", 'found "fp8"; allowed: "fp32", "bf16" or "fp16"'),
        ("train.optimizer.lr", "-1", "found -1; allowed: a number above 0"),
        ("train.optimizer.lr", ".inf", "found inf; allowed: a number above 0"),
        ("train.optimizer.lr", ".nan", "found nan; allowed: a number above 0"),
        ("train.optimizer.lr", "true", "found true; allowed: a number above 0"),
        ("train.optimizer", "0.1", "found 0.1; allowed: a section of keys"),
        ("model.name", "121", "found 121; allowed: text"),
        (
            "cluster.workers",
            "many",
            'found "many"; allowed: a whole number at least 1 and at most 65536, or a section of keys, or "auto"',
        ),
        ("data.std", "[0.5, 0.5]", "found [0.5, 0.5]; allowed: a list of 3, each a number above 0"),
        (
            "train.schedule.milestones",
            "[0.5, 60]",
            "found [0.5, 60]; allowed: a list, each a whole number at least 1, or a list, each a number above 0 and at "
            "most 1, or a quotient such as 1/3",
        ),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_allowed(tmp_path: Path, key: str, value: str, said: str):
    assert faults(tmp_path, VALID, f"{key}={value}") == [f"--set {key}={value}: {key}: {said}"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.batch_norm_groups=9"], "train.batch_norm_groups: found 9 groups for a batch of 8 images"),
        (["cluster.workers=9"], "cluster.workers: found 9 workers for a batch of 8 images"),
        (["train.optimizer.momentum=0"], "train.optimizer.nesterov: found Nesterov momentum with a momentum of 0"),
        (["train.schedule.milestones=[1, 3]"], "train.schedule.milestones: found 3, where the run of 3 epochs is over"),
        (["train.schedule.milestones=[0.5, 1.0]"], "train.schedule.milestones: found 1, where the run of 3 epochs is"),
        (["train.schedule.milestones=[2, 1]"], "train.schedule.milestones: found [2, 1]; allowed: each later than"),
        (["train.schedule.warmup_epochs=3"], "train.schedule.warmup_epochs: found 3 for a run of 3 epochs"),
        (["data.eval.crop=300"], "data.eval.crop: found 300 pixels of an image whose short side is 256"),
        (["data.train.scale=[0.5, 0.1]"], "data.train.scale: found [0.5, 0.1]; allowed: the smaller one first"),
        (
            ["model.num_classes=5", "data.expected={train_images: 9, val_images: 9, classes: 10}"],
            "model.num_classes: found 5 for data of 10 classes",
        ),
    ],
)
def test_arithmetic_that_cannot_work_out_is_refused(tmp_path: Path, overrides: list[str], said: str):
    (fault,) = faults(tmp_path, VALID, *overrides)
    assert said in fault


def test_what_is_required_and_missing_is_said_at_its_section(tmp_path: Path):
    assert faults(tmp_path, VALID.replace("  epochs: 3\n", "")) == [
        "x.yaml:3: train.epochs: not set; allowed: a whole number at least 1 and at most 100000"
    ]


def test_all_faults_are_reported_together_in_the_order_of_lines(tmp_path: Path):
    text = VALID.replace("name: densenet121", "nam: densenet121").replace("epochs: 3", "epochs: x")
    text += "data:\n  train: {scale: [1.0, 0.5]}\nsed: 1\nsed: 2\n"
    found = faults(tmp_path, text, "train.batch_norm_groups=300", "eval.batchsize=2")
    assert [fault.split(": ")[:2] for fault in found] == [
        ["x.yaml:1", "model.name"],
        ["x.yaml:2", "model.nam"],
        ["x.yaml:4", "train.epochs"],
        ["x.yaml:10", "data.train.scale"],
        ["x.yaml:12", "sed"],
        ["--set eval.batchsize=2", "eval.batchsize"],
        ["--set train.batch_norm_groups=300", "train.batch_norm_groups"],
    ]


def test_a_fault_of_an_extended_file_names_that_file(tmp_path: Path):
    (tmp_path / "base.yaml").write_text(VALID.replace("lr:", "rate:"))
    found = faults(tmp_path, "extends: base.yaml\ntrain: {epochs: x}\n")
    assert [fault.split(": ")[:2] for fault in found] == [
        ["base.yaml:7", "train.optimizer.lr"],
        ["base.yaml:8", "train.optimizer.rate"],
        ["x.yaml:2", "train.epochs"],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model:\n\tname: x\n", "x.yaml:2: found a tab; YAML is indented with spaces alone: replace it"),
        ("model: [1\nname: x\n", "x.yaml:2: not YAML: while parsing a flow sequence expected ',' or ']', but got ':'"),
        ("model: 1\n---\nmodel: 2\n", "x.yaml:2: not YAML: expected a single document"),
        ("model: *there\n", "x.yaml:1: not YAML: found undefined alias 'there'"),
        ("seed: 1\nseed: 2\n", "x.yaml:2: seed: given twice, first in line 1; remove one of them"),
        ("seed: !!python/name:os.system 1\n", "x.yaml:1: seed: found the YAML tag python/name:os.system"),
        ("model: &m {name: *m}\n", "x.yaml:1: model.name: the value contains itself"),
        ("[1, 2]: 3\n", "x.yaml:1: found a list or mapping as a key; allowed: plain text"),
        ("", "x.yaml:1: found nothing; allowed: keys and values"),
        ("- 1\n- 2\n", "x.yaml:1: found [1, 2]; allowed: keys and values"),
        ("\x07", "x.yaml:1: not YAML: "),
    ],
)
def test_text_that_is_no_plain_yaml_is_one_clear_message(tmp_path: Path, text: str, said: str):
    assert any(fault.startswith(said) for fault in faults(tmp_path, text))


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(RecipeError, match=r"x\.yaml can't be read: byte 6 is not UTF-8"):
        load_recipe(path)


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train..epochs=3", ".x=1"])
def test_an_override_without_key_or_value_is_refused(tmp_path: Path, override: str):
    (fault,) = faults(tmp_path, VALID, override)
    assert fault == f"--set {override}: found no key and value; allowed: KEY=VALUE, such as train.epochs=30"


def test_an_override_that_is_no_yaml_is_reported_beside_the_faults_of_the_file(tmp_path: Path):
    found = faults(tmp_path, VALID.replace("epochs: 3", "epochs: x"), "data.mean=[1")
    assert len(found) == 2
    assert found[1].startswith("--set data.mean=[1: data.mean: not YAML: ")


@pytest.mark.parametrize(
    ("value", "key", "said"),
    [
        (
            "{min: 2, mx: 3}",
            "cluster.workers.mx",
            'unknown key; did you mean "max"? allowed in cluster.workers: min, max',
        ),
        ("{min: 2}", "cluster.workers.max", "not set; allowed: a whole number at least 1 and at most 65536"),
        ("{min: 0, max: 2}", "cluster.workers.min", "found 0; allowed: a whole number at least 1 and at most 65536"),
        (
            "{min: 3, max: 2}",
            "cluster.workers.min",
            "found at least 3 workers and at most 2; allowed: the smaller one as min",
        ),
    ],
)
def test_a_section_where_a_value_may_stand_is_checked_as_a_section(tmp_path: Path, value: str, key: str, said: str):
    assert f"--set cluster.workers={value}: {key}: {said}" in faults(tmp_path, VALID, f"cluster.workers={value}")
