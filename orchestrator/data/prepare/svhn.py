"""SVHN (Street View House Numbers, format 2: 32x32 pixels) in its three official .mat files."""

from pathlib import Path

import numpy as np

from orchestrator.data.prepare.archives import Archive
from orchestrator.data.prepare.matlab import load_mat
from orchestrator.data.prepare.parts import ArchivedDataset
from orchestrator.data.prepare.pixels import Block, parts_of_pixels
from orchestrator.errors import DataError

ORIGIN = "http://ufldl.stanford.edu/housenumbers/"
# Sums as torchvision has them.
TRAIN = Archive(name="train_32x32.mat", md5="e26dedcc434d2e4c54c9b2d4a06d8373")
EXTRA = Archive(name="extra_32x32.mat", md5="a93ce644f1a588dc4d68dda5feec44a7")
TEST = Archive(name="test_32x32.mat", md5="eb5a983be6a315427106f1b164d9cef3")

_NUM_DIGITS = 10
_SHAPE = (32, 32, 3)


def archived_svhn(folder: Path) -> ArchivedDataset:
    """The parts of SVHN in a folder with its three files. Training images are train's and extra's together.

    Takes 2 GB of memory, and some more while reading. Raises DataError if a file doesn't hold what SVHN's do,
    UsageError without scipy.
    """
    extra = _block(folder / EXTRA.name, "extra_")
    train = _block(folder / TRAIN.name, "train_")
    test = _block(folder / TEST.name, "")
    digits = [str(digit) for digit in range(_NUM_DIGITS)]
    return ArchivedDataset(parts=parts_of_pixels([extra, train], test, class_names=digits))


def _block(path: Path, prefix: str) -> Block:
    variables = load_mat(path, path)
    pixels, labels = variables.get("X"), variables.get("y")
    if pixels is None or labels is None or pixels.dtype != np.uint8 or pixels.shape != (*_SHAPE, labels.size):
        raise DataError(f"{path} doesn't hold what SVHN's files hold: X, of 32x32x3xN bytes, and N labels y.")
    digits = labels.ravel().astype(np.int64)
    digits[digits == _NUM_DIGITS] = 0  # as in MATLAB, counting begins with 1, and the digit 0 comes last
    return Block(
        pixels=pixels.transpose(3, 0, 1, 2),
        labels=digits,
        prefix=prefix,
    )
