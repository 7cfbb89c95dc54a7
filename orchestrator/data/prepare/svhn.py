"""SVHN (Street View House Numbers, format 2: 32x32 pixels) in its three official .mat files."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchestrator.data.prepare.archives import Archive
from orchestrator.data.prepare.matlab import load_mat
from orchestrator.data.prepare.parts import Source
from orchestrator.data.prepare.pixels import Block, Validation, parts_of_pixels
from orchestrator.errors import DataError

ORIGIN = "http://ufldl.stanford.edu/housenumbers/"
# Sums as torchvision has them.
TRAIN = Archive(name="train_32x32.mat", md5="e26dedcc434d2e4c54c9b2d4a06d8373")
EXTRA = Archive(name="extra_32x32.mat", md5="a93ce644f1a588dc4d68dda5feec44a7")
TEST = Archive(name="test_32x32.mat", md5="eb5a983be6a315427106f1b164d9cef3")

NUM_HELD_OUT_BY_CLASS = {"extra": 200, "train": 400}
"""6,000 of the training images: the practice since Sermanet et al. (2012), and what the code of "Deep Networks with
Stochastic Depth", by some of the same authors, does: the first of each class."""

_NUM_DIGITS = 10
_SHAPE = (32, 32, 3)


def svhn_source(folder: Path, validation: Validation) -> Source:
    """The parts of SVHN in a folder with its three files. Training images are train's and extra's together.

    Takes 2 GB of memory, and some more while reading. Raises DataError if a file doesn't hold what SVHN's do,
    UsageError without scipy.
    """
    extra = _block(folder / EXTRA.name, "extra_", NUM_HELD_OUT_BY_CLASS["extra"])
    train = _block(folder / TRAIN.name, "train_", NUM_HELD_OUT_BY_CLASS["train"])
    test = _block(folder / TEST.name, "", 0)
    digits = [str(digit) for digit in range(_NUM_DIGITS)]
    return Source(parts=parts_of_pixels([extra, train], test, class_names=digits, validation=validation))


def _block(path: Path, prefix: str, num_held_out_by_class: int) -> Block:
    variables = load_mat(path, path)
    pixels, labels = variables.get("X"), variables.get("y")
    if pixels is None or labels is None or pixels.dtype != np.uint8 or pixels.shape != (*_SHAPE, labels.size):
        raise DataError(f"{path} doesn't hold what SVHN's files hold: X, of 32x32x3xN bytes, and N labels y.")
    digits = labels.ravel().astype(np.int64)
    digits[digits == _NUM_DIGITS] = 0  # as in MATLAB, counting begins with 1, and the digit 0 comes last
    return Block(
        pixels=pixels.transpose(3, 0, 1, 2),
        labels=digits,
        held_out=_first_of_each_class(digits, num_held_out_by_class),
        prefix=prefix,
    )


def _first_of_each_class(labels: npt.NDArray[np.int64], num_by_class: int) -> npt.NDArray[np.bool_]:
    """bool[n]: whether an image is among the first so many of its class."""
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[:num_by_class]] = True
    return chosen
