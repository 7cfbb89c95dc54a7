"""Batch-norm groups: which images a rank trains on, at any world size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.groups import GroupShare, group_ranks, group_shares, share_positions, split_evenly

sizes = st.integers(min_value=1, max_value=40)


def positions_by_group(*, step: int, num_samples: int, batch: int, num_groups: int, world_size: int) -> list[list[int]]:
    """What the ranks take at a step, gathered by group in the order of parts."""
    taken: list[list[int]] = [[] for _ in range(num_groups)]
    for rank in range(world_size):
        for share in group_shares(num_groups=num_groups, world_size=world_size, rank=rank):
            taken[share.group] += share_positions(
                step_in_epoch=step, num_samples=num_samples, global_batch_size=batch, num_groups=num_groups, share=share
            )
    return taken


def test_four_groups_on_three_ranks_are_shared_2_1_1():
    shares = [group_shares(num_groups=4, world_size=3, rank=rank) for rank in range(3)]
    assert [[share.group for share in of_rank] for of_rank in shares] == [[0, 1], [2], [3]]
    assert group_ranks(num_groups=4, world_size=3) == ((0,), (0,), (1,), (2,))


def test_three_ranks_split_the_first_of_two_groups():
    shares = [group_shares(num_groups=2, world_size=3, rank=rank) for rank in range(3)]
    assert shares == [
        (GroupShare(group=0, part=0, num_parts=2),),
        (GroupShare(group=0, part=1, num_parts=2),),
        (GroupShare(group=1, part=0, num_parts=1),),
    ]
    assert group_ranks(num_groups=2, world_size=3) == ((0, 1), (2,))


def test_the_last_step_of_an_imagenet_epoch_splits_143_images_over_four_groups():
    groups = positions_by_group(step=5004, num_samples=1_281_167, batch=256, num_groups=4, world_size=1)
    assert [len(group) for group in groups] == [36, 36, 36, 35]
    assert groups[0][0] == 5004 * 256
    assert groups[3][-1] == 1_281_166


def test_a_step_beyond_the_epoch_is_refused():
    share = GroupShare(group=0, part=0, num_parts=1)
    with pytest.raises(ValueError, match="no step 3"):
        share_positions(step_in_epoch=3, num_samples=12, global_batch_size=4, num_groups=2, share=share)


@given(num_items=st.integers(min_value=0, max_value=1000), num_parts=sizes)
def test_an_even_split_covers_everything_once_and_its_parts_differ_by_at_most_one(num_items: int, num_parts: int):
    parts = split_evenly(num_items, num_parts)
    assert [item for part in parts for item in part] == list(range(num_items))
    lengths = [len(part) for part in parts]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1


@given(data=st.data(), num_groups=sizes, world_size=sizes)
def test_every_position_of_an_epoch_is_taken_exactly_once_at_any_world_size(
    data: st.DataObject, num_groups: int, world_size: int
):
    batch = data.draw(st.integers(min_value=num_groups, max_value=num_groups + 60))
    num_samples = data.draw(st.integers(min_value=1, max_value=5 * batch))
    taken: list[int] = []
    for step in range(-(-num_samples // batch)):
        for group in positions_by_group(
            step=step, num_samples=num_samples, batch=batch, num_groups=num_groups, world_size=world_size
        ):
            taken += group
    assert taken == list(range(num_samples))


@given(num_groups=sizes, world_size=sizes, num_samples=st.integers(min_value=1, max_value=200))
def test_the_images_of_a_group_do_not_depend_on_the_world_size(num_groups: int, world_size: int, num_samples: int):
    step = {"step": 0, "num_samples": num_samples, "batch": 128, "num_groups": num_groups}
    assert positions_by_group(**step, world_size=world_size) == positions_by_group(**step, world_size=1)


@given(num_groups=sizes, world_size=sizes)
def test_group_ranks_and_group_shares_say_the_same(num_groups: int, world_size: int):
    ranks: list[list[int]] = [[] for _ in range(num_groups)]
    for rank in range(world_size):
        for share in group_shares(num_groups=num_groups, world_size=world_size, rank=rank):
            assert share.part == len(ranks[share.group])
            ranks[share.group].append(rank)
    assert tuple(map(tuple, ranks)) == group_ranks(num_groups=num_groups, world_size=world_size)
