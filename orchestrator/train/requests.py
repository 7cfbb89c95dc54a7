"""Which images this rank reads for which step: rule and plan turned into requests to a loader."""

from collections.abc import Iterator, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.batch import SampleRequest
from orchestrator.data.order import epoch_order
from orchestrator.plan.groups import GroupShare, share_positions, split_evenly
from orchestrator.plan.plan import Numerics
from orchestrator.train.world import World


def training_requests(
    numerics: Numerics,
    shares: Sequence[GroupShare],
    *,
    rows: NDArray[np.int64],
    first_step: int,
    passed_over: Set[int] = frozenset(),
) -> Iterator[SampleRequest]:
    """One request for each of a rank's shares of batch-norm groups, step after step to the end of the run.

    rows: int64[num_train_images], what of the manifest is trained on.
    passed_over: steps whose images are left out.
    """
    for step in range(first_step, numerics.num_steps):
        epoch, step_in_epoch = divmod(step, numerics.steps_per_epoch)
        if step == first_step or step_in_epoch == 0:
            order = rows[epoch_order(seed=numerics.seed, epoch=epoch, num_samples=numerics.num_train_images)]
        if step in passed_over:
            continue
        for share in shares:
            positions = share_positions(
                step_in_epoch=step_in_epoch,
                num_samples=numerics.num_train_images,
                global_batch_size=numerics.global_batch_size,
                num_groups=numerics.batch_norm_groups,
                share=share,
            )
            yield SampleRequest(epoch=epoch, indices=order[positions.start : positions.stop])


def step_samples(numerics: Numerics, step: int, *, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of all images of a step, in the order of the epoch; `rows` as in training_requests."""
    epoch, step_in_epoch = divmod(step, numerics.steps_per_epoch)
    order = rows[epoch_order(seed=numerics.seed, epoch=epoch, num_samples=numerics.num_train_images)]
    first = step_in_epoch * numerics.global_batch_size
    return order[first : first + numerics.global_batch_size]


def evaluation_requests(rows: NDArray[np.int64], world: World, *, batch_size: int) -> Iterator[SampleRequest]:
    """This rank's part of the images to evaluate on, each image once over all ranks.

    rows: int64[n], what of the manifest is evaluated on. batch_size: images at a time.
    """
    part = split_evenly(len(rows), world.size)[world.rank]
    for first in range(part.start, part.stop, batch_size):
        yield SampleRequest(epoch=0, indices=rows[first : min(first + batch_size, part.stop)])
