"""CIFAR-10 and CIFAR-100 in their official archives, of the version for Python or of the binary one.

The version for Python consists of pickles, which may execute anything. These are read by an unpickler that knows plain
values and arrays of bytes, and nothing else. Both versions give the same files.
"""

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.data.prepare.archives import Archive
from orchestrator.data.prepare.parts import ArchivedDataset
from orchestrator.data.prepare.pixels import Block, parts_of_pixels
from orchestrator.data.prepare.tars import read_members
from orchestrator.errors import DataError

ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar.html"
# Sums as that page states them.
CIFAR10_PYTHON = Archive(name="cifar-10-python.tar.gz", md5="c58f30108f718f92721af3b95e74349a")
CIFAR10_BINARY = Archive(name="cifar-10-binary.tar.gz", md5="c32a1d4ab5d03f1284b67883e8d87530")
CIFAR100_PYTHON = Archive(name="cifar-100-python.tar.gz", md5="eb9058c3a382ffc7106e4002c42a8d85")
CIFAR100_BINARY = Archive(name="cifar-100-binary.tar.gz", md5="03b5dce01913d631647c71ecec9e9cb8")

_SIDE = 32
_PIXEL_BYTES = 3 * _SIDE * _SIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where a version of an archive keeps what."""

    train: tuple[str, ...]
    test: str
    class_names: str
    names_key: bytes = b""
    """Python version: of the class names."""
    labels_key: bytes = b""
    """Python version: of the labels."""
    label_bytes: int = 0
    """Binary version: in front of an image. The last of them is the class, the one before it a group of classes."""


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_LAYOUTS = {
    CIFAR10_PYTHON.name: _Layout(
        train=_BATCHES, test="test_batch", class_names="batches.meta", names_key=b"label_names", labels_key=b"labels"
    ),
    CIFAR10_BINARY.name: _Layout(
        train=tuple(f"{name}.bin" for name in _BATCHES),
        test="test_batch.bin",
        class_names="batches.meta.txt",
        label_bytes=1,
    ),
    CIFAR100_PYTHON.name: _Layout(
        train=("train",), test="test", class_names="meta", names_key=b"fine_label_names", labels_key=b"fine_labels"
    ),
    CIFAR100_BINARY.name: _Layout(
        train=("train.bin",), test="test.bin", class_names="fine_label_names.txt", label_bytes=2
    ),
}


def archived_cifar(archive: Path) -> ArchivedDataset:
    """The parts of CIFAR-10 or CIFAR-100, whichever archive it is. Raises DataError if it doesn't hold that."""
    layout = _LAYOUTS[archive.name]
    files = read_members(archive, [*layout.train, layout.test, layout.class_names])
    try:
        class_names = _class_names(files[layout.class_names], layout)
        train = _block([files[name] for name in layout.train], layout)
        test = _block([files[layout.test]], layout)
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"{archive} doesn't hold what CIFAR's archives hold: {error!r}.") from error
    return ArchivedDataset(parts=parts_of_pixels([train], test, class_names=class_names))


def _block(contents: Sequence[bytes], layout: _Layout) -> Block:
    planes, labels = zip(*(_planes_and_labels(content, layout) for content in contents), strict=True)
    if len({len(batch) for batch in labels}) > 1 or not len(labels[0]):
        raise ValueError(f"batches of {', '.join(str(len(batch)) for batch in labels)} images")
    return Block(
        pixels=np.concatenate(planes).reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1),
        labels=np.concatenate(labels),
    )


def _class_names(content: bytes, layout: _Layout) -> tuple[str, ...]:
    names = content.split(b"\n") if layout.label_bytes else _unpickled(content)[layout.names_key]
    return tuple(name.decode("ascii").strip() for name in names if name.strip())


def _planes_and_labels(content: bytes, layout: _Layout) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """uint8[n, 3072], each image's red, green and blue pixels, and int64[n]."""
    if layout.label_bytes:
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, layout.label_bytes + _PIXEL_BYTES)
        return records[:, layout.label_bytes :], records[:, layout.label_bytes - 1].astype(np.int64)
    batch = _unpickled(content)
    planes = batch[b"data"].pixels().reshape(-1, _PIXEL_BYTES)
    labels = np.array(batch[layout.labels_key], dtype=np.int64)
    if len(planes) != len(labels):
        raise ValueError(f"{len(planes)} images and {len(labels)} labels")
    return planes, labels


class _PickledArray:
    """What an array in a pickle becomes: its shape and bytes, as numpy's way of pickling states them."""

    def __init__(self, *what_numpy_begins_with: object) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def pixels(self) -> npt.NDArray[np.uint8]:
        """The array; ValueError unless it is one of bytes in C order."""
        _, shape, dtype, in_fortran_order, content = self._state
        if dtype.name not in (b"u1", "u1") or in_fortran_order:
            raise ValueError("pixels aren't bytes in C order")
        return np.frombuffer(content, dtype=np.uint8).reshape(shape)


class _PickledDtype:
    """What an array's element type in a pickle becomes: its name."""

    def __init__(self, name: bytes | str, *flags: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which a single byte hasn't got."""


class _PlainUnpickler(pickle.Unpickler):  # find_class lets nothing but the two stand-ins above be called
    _KNOWN: Mapping[tuple[str, str], type] = {
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
    }

    def find_class(self, module: str, name: str) -> type:
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"a pickle wants to call {module}.{name}") from None


def _unpickled(content: bytes) -> dict[bytes, Any]:
    value = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(value, dict):
        raise ValueError("a pickle holds no dictionary")
    return value
