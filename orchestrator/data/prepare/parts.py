"""The seam between archives and what is made of them: a data set as parts, each part one class of one split.

Readers of archives (imagenet.py, cifar.py, svhn.py) make the parts; a writer (folder.py) consumes them. A part is read
independently of the others, so a writer may take several at a time, and take up where it was interrupted. Parts, and
the images of a part, come in the order in which a manifest lists them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An image on its way from an archive into a data set."""

    split: str
    class_name: str
    name: str
    """Of the file, unique in its class."""
    data: bytes
    """The encoded image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The images of one class of one split."""

    split: str
    class_name: str
    num_images: int
    num_bytes: int
    """Of all its images together; no less than it is, and a few in a hundred more at most."""
    read: Callable[[], Iterator[tuple[str, bytes]]]
    """Gives the name and the content of each image, in the order of the names. Raises DataError, or OSError."""

    @property
    def name(self) -> str:
        """SPLIT/CLASS."""
        return f"{self.split}/{self.class_name}"

    def samples(self) -> Iterator[Sample]:
        """The images, in the order of their names. Raises what `read` raises."""
        for name, data in self.read():
            yield Sample(split=self.split, class_name=self.class_name, name=name, data=data)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedDataset:
    """A data set that lies in archives."""

    parts: tuple[Part, ...]
    """All of its splits, each with its classes in the order of their names."""

    def samples(self, split: str) -> Iterator[Sample]:
        """The images of a split in the order of its manifest. Raises what reading a part raises."""
        for part in self.parts:
            if part.split == split:
                yield from part.samples()

    @property
    def num_images(self) -> dict[str, dict[str, int]]:
        """Of each class of each split."""
        counts: dict[str, dict[str, int]] = {part.split: {} for part in self.parts}
        for part in self.parts:
            counts[part.split][part.class_name] = part.num_images
        return counts
