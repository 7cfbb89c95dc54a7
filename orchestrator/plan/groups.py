"""Which positions of an epoch's order a rank trains on: batch-norm groups, ranks, and shares of groups.

The groups of a step depend on the batch alone and never on the number of ranks, so a run follows the same loss curve
at any world size. Where there are fewer ranks than groups each rank takes whole groups, one after another; where
there are more, a group is split over several ranks, which then synchronise its statistics.
"""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupShare:
    """Part `part` of `num_parts` of batch-norm group `group`; a whole group is part 0 of 1."""

    group: int
    part: int
    num_parts: int


def split_evenly(num_items: int, num_parts: int) -> tuple[range, ...]:
    """Consecutive ranges that cover range(num_items); sizes differ by at most one and the larger ones come first."""
    size, num_larger = divmod(num_items, num_parts)
    starts = [part * size + min(part, num_larger) for part in range(num_parts + 1)]
    return tuple(range(start, stop) for start, stop in pairwise(starts))


def group_shares(*, num_groups: int, world_size: int, rank: int) -> tuple[GroupShare, ...]:
    """What rank `rank` computes of every step, in order; four groups on three ranks are shared 2, 1, 1."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not one of {world_size}")
    if world_size <= num_groups:
        groups = split_evenly(num_groups, world_size)[rank]
        return tuple(GroupShare(group=group, part=0, num_parts=1) for group in groups)
    for group, ranks in enumerate(split_evenly(world_size, num_groups)):
        if rank in ranks:
            return (GroupShare(group=group, part=rank - ranks.start, num_parts=len(ranks)),)
    raise AssertionError("every rank belongs to a group")


def group_ranks(*, num_groups: int, world_size: int) -> tuple[tuple[int, ...], ...]:
    """For each group the ranks that hold it, in the order of their parts."""
    if world_size <= num_groups:
        owners = split_evenly(num_groups, world_size)
        return tuple((rank,) for rank, groups in enumerate(owners) for _ in groups)
    return tuple(tuple(ranks) for ranks in split_evenly(world_size, num_groups))


def share_positions(
    *, step_in_epoch: int, num_samples: int, global_batch_size: int, num_groups: int, share: GroupShare
) -> range:
    """Positions in the epoch's order that a share consumes at a step; may be empty at the short last step.

    The last step of an epoch takes what is left, split over the groups as evenly as can be.
    """
    start = step_in_epoch * global_batch_size
    num_images = min(global_batch_size, num_samples - start)
    if step_in_epoch < 0 or num_images <= 0:
        raise ValueError(f"an epoch of {num_samples} samples has no step {step_in_epoch}")
    group = split_evenly(num_images, num_groups)[share.group]
    part = split_evenly(len(group), share.num_parts)[share.part]
    return range(start + group.start + part.start, start + group.start + part.stop)
