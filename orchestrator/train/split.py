"""Which images a run trains on, validates on and is tested on: the folders as they are, or train/ divided by the seed.

With images held out, val/ is the test set: it is read once, when the last step is done. Otherwise it is validated on.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.data.index import Dataset
from orchestrator.data.manifest import Manifest
from orchestrator.data.order import held_out_rows
from orchestrator.plan.plan import Numerics

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Some of a manifest's images."""

    manifest: Manifest
    rows: Rows
    """int64[n], ascending rows of the manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A data set divided; test is None where no images are held out."""

    train: Images
    val: Images
    test: Images | None


def split_dataset(dataset: Dataset, numerics: Numerics) -> Split:
    """What the plan makes of a data set."""
    if not numerics.num_held_out_images:
        return Split(train=_all(dataset.train), val=_all(dataset.val), test=None)
    held_out = held_out_rows(
        seed=numerics.seed, num_samples=dataset.train.num_samples, num_held_out=numerics.num_held_out_images
    )
    kept = np.ones(dataset.train.num_samples, dtype=np.bool_)
    kept[held_out] = False
    return Split(
        train=Images(manifest=dataset.train, rows=np.flatnonzero(kept)),
        val=Images(manifest=dataset.train, rows=held_out),
        test=_all(dataset.val),
    )


def _all(manifest: Manifest) -> Images:
    return Images(manifest=manifest, rows=np.arange(manifest.num_samples, dtype=np.int64))
