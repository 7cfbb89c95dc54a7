"""plan.json and the two fingerprints: what each covers, and that both survive being written and read."""

import json
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from orchestrator.errors import StorageError
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.groups import GroupShare
from orchestrator.plan.plan import Execution, Numerics, Placement, Plan
from orchestrator.plan.resolve import resolve
from orchestrator.recipe.load import load_recipe

PLAN = resolve(
    load_recipe("densenet121"),
    cluster=ClusterShape(num_cpus=8),
    dataset=None,
    versions={"torch": "2.15.0"},
    loader_available="pytorch",
)

OTHER_WORDS = {
    "pytorch": "dali",
    "cpu": "mixed",
    "torch": "torchvision",
    "bicubic": "bilinear",
    "authors": "timm",
    "fp32": "bf16",
    "imagenet": "cifar",
}


def leaf_keys(part: Any, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for field in fields(part):
        value = getattr(part, field.name)
        nested = leaf_keys(value, f"{prefix}{field.name}.") if is_dataclass(value) else [prefix + field.name]
        keys += nested
    return keys


def other(value: Any, key: str) -> Any:
    """A value of the same kind that isn't this one."""
    match value:
        case bool():
            return not value
        case int() | float():
            return 0.25 if key == "compression" else value + 1
        case str():
            return OTHER_WORDS.get(value, value + "x")
        case None:
            return 1
        case ():
            return (("zero_init_last", False),)
        case tuple() if value and isinstance(value[0], tuple):
            return (*value, (GroupShare(group=0, part=0, num_parts=1),))
        case tuple():
            return tuple(other(item, key) for item in value)
        case dict():
            return {**value, "ray": "2.60.0"}
    raise AssertionError(f"no other value for {value!r}")


def changed(part: Any, key: str) -> Any:
    name, _, rest = key.partition(".")
    value = getattr(part, name)
    return replace(part, **{name: changed(value, rest) if rest else other(value, name)})


@pytest.mark.parametrize("key", leaf_keys(PLAN.numerics))
def test_a_change_of_numerics_moves_their_fingerprint_and_is_named(key: str):
    numerics: Numerics = changed(PLAN.numerics, key)
    moved = replace(PLAN, numerics=numerics)
    assert moved.fingerprints["numerics"] != PLAN.fingerprints["numerics"]
    assert moved.fingerprints["placement"] == PLAN.fingerprints["placement"]
    assert [difference for difference, _, _ in numerics.differences(PLAN.numerics)] == [key]


@pytest.mark.parametrize("key", leaf_keys(PLAN.placement))
def test_a_change_of_placement_moves_its_fingerprint_alone(key: str):
    placement: Placement = changed(PLAN.placement, key)
    moved = replace(PLAN, placement=placement)
    assert moved.fingerprints["placement"] != PLAN.fingerprints["placement"]
    assert moved.fingerprints["numerics"] == PLAN.fingerprints["numerics"]


@pytest.mark.parametrize("key", leaf_keys(PLAN.execution))
def test_a_change_of_execution_moves_neither_fingerprint(key: str):
    execution: Execution = changed(PLAN.execution, key)
    assert replace(PLAN, execution=execution).fingerprints == PLAN.fingerprints


def test_the_numerics_are_the_same_on_every_cluster_of_cpus():
    plans = [
        resolve(
            load_recipe("densenet121", [f"cluster.workers={workers}"]),
            cluster=ClusterShape(num_cpus=8),
            dataset=None,
            versions={},
            loader_available="pytorch",
        )
        for workers in (1, 2, 3, 4, 7)
    ]
    assert len({plan.numerics.fingerprint for plan in plans}) == 1
    assert len({plan.placement.fingerprint for plan in plans}) == 5


def test_a_plan_survives_being_written_and_read():
    again = Plan.from_json(PLAN.to_json())
    assert again == PLAN
    assert again.fingerprints == PLAN.fingerprints


def test_a_plan_of_another_format_is_refused():
    document = {**json.loads(PLAN.to_json()), "format_version": 9}
    with pytest.raises(StorageError, match="format_version 9, and this dnctl reads 2"):
        Plan.from_json(json.dumps(document))


def test_a_plan_that_lacks_a_field_is_refused_by_its_name():
    document = json.loads(PLAN.to_json())
    del document["numerics"]["seed"]
    del document["placement"]["device"]
    with pytest.raises(StorageError, match=r"(?s)numerics\.seed.*placement\.device"):
        Plan.from_json(json.dumps(document))


def test_a_plan_that_was_changed_after_it_was_written_is_refused():
    document = json.loads(PLAN.to_json())
    document["numerics"]["seed"] = 1
    with pytest.raises(StorageError, match="changed after it was written"):
        Plan.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", '"x"', PLAN.to_json()[:100]])
def test_text_that_is_no_plan_is_refused(text: str):
    with pytest.raises(StorageError, match="damaged"):
        Plan.from_json(text)
