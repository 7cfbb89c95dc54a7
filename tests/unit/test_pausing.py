"""When workers must make room: as soon as a node of theirs goes, and no more often than the recipe says to grow."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.engine.nodes import room_for
from orchestrator.engine.pausing import reason_to_grow, reason_to_leave
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.placement import resolve_placement
from orchestrator.plan.plan import Placement
from orchestrator.recipe.load import load_recipe
from orchestrator.run.spent import read_worker_nodes, write_worker_nodes


@pytest.fixture(scope="module")
def elastic() -> Placement:
    recipe = load_recipe("demo", ["cluster.workers={min: 1, max: 4}", "train.batch_norm_groups=4"])
    return resolve_placement(recipe, cluster=ClusterShape(num_cpus=4), versions={})


def test_a_node_that_goes_concerns_those_who_are_on_it_alone():
    leaving = {"aaaa": 1060.0, "bbbb": None}
    assert reason_to_leave(["cccc", "dddd"], leaving, now=1000.0) is None
    assert reason_to_leave(["cccc", "aaaa"], leaving, now=1000.0) == (
        "preemption announced: node aaaa goes away in 60 s"
    )
    assert reason_to_leave(["bbbb"], leaving, now=1000.0) == "preemption announced: node bbbb goes away"
    assert reason_to_leave(["aaaa", "bbbb"], leaving, now=1000.0) == ("preemption announced: 2 nodes go away in 60 s")


def test_workers_grow_as_far_as_there_is_room_and_use(elastic: Placement):
    assert reason_to_grow(2, elastic, free=1, since_s=60.0) == "room for 3 workers instead of 2"
    assert reason_to_grow(2, elastic, free=9, since_s=60.0) == "room for 4 workers instead of 2"
    assert reason_to_grow(2, elastic, free=0, since_s=60.0) is None
    assert reason_to_grow(4, elastic, free=9, since_s=60.0) is None


def test_workers_that_have_just_begun_are_left_alone(elastic: Placement):
    assert reason_to_grow(2, elastic, free=1, since_s=59.0) is None
    assert reason_to_grow(2, replace(elastic, resize_s=5.0), free=1, since_s=59.0) is not None


def test_room_is_counted_by_node():
    free = {"a": {"CPU": 3.0, "GPU": 1.0}, "b": {"CPU": 7.0, "GPU": 2.0}, "c": {"CPU": 64.0}}
    assert room_for({"CPU": 2.0, "GPU": 1.0}, free) == 3
    assert room_for({"CPU": 4.0, "GPU": 0}, free) == 17


def test_where_workers_are_is_read_as_it_was_written_and_nothing_else(tmp_path: Path):
    path = tmp_path / "nodes.json"
    assert read_worker_nodes(path) is None
    write_worker_nodes(path, ["a", "b"])
    found = read_worker_nodes(path)
    assert found is not None
    assert found.nodes == ("a", "b")
    path.write_text("[]")
    assert read_worker_nodes(path) is None
