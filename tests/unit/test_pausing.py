"""When workers must make room: as soon as a node of theirs goes, and no more often than the recipe says to grow."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.engine.nodes import room_for
from orchestrator.engine.pausing import LOOKS_BEFORE_GROWING, Growing, departures_of
from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.placement import resolve_placement
from orchestrator.plan.plan import Placement
from orchestrator.recipe.load import load_recipe
from orchestrator.run.pause import Departure, PauseRequest, announcement, ask_to_pause, read_pause_request
from orchestrator.run.spent import read_worker_nodes, write_worker_nodes


@pytest.fixture(scope="module")
def elastic() -> Placement:
    recipe = load_recipe("demo", ["cluster.workers={min: 1, max: 4}", "train.batch_norm_groups=4"])
    return resolve_placement(recipe, cluster=ClusterShape(num_cpus=4), versions={})


def departure(node: str, *, deadline: float | None = None, cause: str | None = None) -> Departure:
    return Departure(node=node, host=f"host-{node}", address="10.0.0.1", deadline=deadline, cause=cause)


def test_a_node_that_goes_concerns_those_who_are_on_it_alone():
    leaving = {"a": departure("a"), "b": departure("b")}
    assert departures_of(["c", "d"], leaving) == ()
    assert departures_of(["c", "a", "a"], leaving) == (leaving["a"],)
    assert departures_of(["b", "a"], leaving) == (leaving["a"], leaving["b"])


def test_what_is_said_of_nodes_that_go_names_them_when_they_go_and_who_takes_them():
    timed = departure("a", deadline=1060.0, cause="AWS spot interruption (terminate)")
    assert announcement([timed], now=1000.0) == (
        "preemption announced: AWS spot interruption (terminate): node host-a (10.0.0.1) goes away in 60 s"
    )
    assert announcement([departure("b")], now=1000.0) == "preemption announced: node host-b (10.0.0.1) goes away"
    assert announcement([departure("b"), timed], now=1000.0) == (
        "preemption announced: AWS spot interruption (terminate): 2 nodes go away, the first in 60 s: "
        "host-b (10.0.0.1), host-a (10.0.0.1)"
    )


def test_the_first_request_to_pause_counts_and_is_read_as_it_was_written(tmp_path: Path):
    path = tmp_path / "pause.json"
    assert read_pause_request(path) is None
    leave = PauseRequest(reason="why", departures=(departure("a", deadline=1060.0, cause="AWS"),))
    assert ask_to_pause(path, leave)
    assert not ask_to_pause(path, PauseRequest(reason="room for more"))
    assert read_pause_request(path) == leave


@pytest.mark.parametrize("text", ["", "[]", '{"format_version": 1}', '{"format_version": 1, "departures": [7]}'])
def test_a_request_to_pause_that_is_damaged_is_one_all_the_same(tmp_path: Path, text: str):
    (tmp_path / "pause.json").write_text(text)
    request = read_pause_request(tmp_path / "pause.json")
    assert request is not None
    assert request.reason.startswith("not readable")


def looks(growing: Growing, world_size: int, *, free: int, began_at: float, now: float) -> str | None:
    """What comes of as many looks as it takes."""
    said = [growing.reason(world_size, free=free, began_at=began_at, now=now) for _ in range(LOOKS_BEFORE_GROWING)]
    assert said[:-1] == [None] * (LOOKS_BEFORE_GROWING - 1)
    return said[-1]


def test_workers_grow_as_far_as_there_is_room_and_use(elastic: Placement):
    for world_size, free, reason in (
        (2, 1, "room for 3 workers instead of 2"),
        (2, 9, "room for 4 workers instead of 2"),
        (2, 0, None),
        (4, 9, None),
    ):
        assert looks(Growing(elastic), world_size, free=free, began_at=0.0, now=60.0) == reason


def test_workers_that_have_just_begun_are_left_alone(elastic: Placement):
    assert looks(Growing(elastic), 2, free=1, began_at=0.0, now=59.0) is None
    assert looks(Growing(replace(elastic, resize_s=5.0)), 2, free=1, began_at=0.0, now=59.0) is not None


def test_room_that_comes_and_goes_is_no_reason(elastic: Placement):
    growing = Growing(elastic)
    for free in (1, 1, 0) * 5:
        assert growing.reason(2, free=free, began_at=0.0, now=100.0) is None


def test_growing_that_came_to_nothing_is_tried_again_later_each_time(elastic: Placement):
    growing, began_at = Growing(elastic), 0.0
    for rest_s in (60.0, 120.0, 240.0):
        assert looks(growing, 2, free=1, began_at=began_at, now=began_at + rest_s - 1) is None
        assert looks(growing, 2, free=1, began_at=began_at, now=began_at + rest_s) is not None
        began_at += 1000.0  # as many workers as before begin


def test_a_machine_that_comes_back_and_must_go_again_is_taken_later_each_time(elastic: Placement):
    growing, began_at = Growing(elastic), 0.0
    for rest_s in (60.0, 120.0, 240.0):
        assert looks(growing, 2, free=1, began_at=began_at, now=began_at + rest_s - 1) is None
        assert looks(growing, 2, free=1, began_at=began_at, now=began_at + rest_s) is not None
        growing.must_leave(3, began_at=began_at + 500.0)  # at first sight of the three
        began_at += 1000.0


def test_growing_that_lasted_makes_up_for_what_came_to_nothing(elastic: Placement):
    growing = Growing(elastic)
    assert looks(growing, 2, free=1, began_at=0.0, now=60.0) is not None
    growing.must_leave(3, began_at=100.0)
    assert looks(growing, 2, free=1, began_at=200.0, now=319.0) is None
    assert looks(growing, 2, free=1, began_at=200.0, now=320.0) is not None
    assert looks(growing, 3, free=0, began_at=400.0, now=1000.0) is None
    growing.must_leave(3, began_at=400.0)
    assert looks(growing, 2, free=1, began_at=2000.0, now=2120.0) is not None


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
