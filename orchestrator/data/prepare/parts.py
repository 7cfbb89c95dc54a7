"""The seam between archives and what is made of them: a data set as parts, each part one class of one split.

Readers of archives (imagenet.py, cifar.py, svhn.py) make the parts; writers (folder.py, shards.py) consume them. A part
is opened independently of the others, and its images are read in any order and from any thread, so a writer may take
several at a time, and take up where it was interrupted. Parts, and the images of a part, come in the order in which a
manifest lists them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The images of a part, by their positions in the order of their names."""

    names: Sequence[str]
    """Of the files, unique in their class."""
    num_bytes: Sequence[int]
    """Of each file."""
    read: Callable[[int], bytes]
    """Gives the content of the file at a position; may be called from any thread. Raises DataError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The images of one class of one split."""

    split: str
    class_name: str
    num_images: int
    num_bytes: int
    """Of all its images together; no less than it is, and a few in a hundred more at most."""
    open: Callable[[], Images]
    """Looks up the images in the archive. Raises DataError if they aren't as they should be."""

    @property
    def name(self) -> str:
        """SPLIT/CLASS."""
        return f"{self.split}/{self.class_name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedDataset:
    """A data set that lies in archives."""

    parts: tuple[Part, ...]
    """All of its splits, each with its classes in the order of their names."""

    @property
    def num_images(self) -> dict[str, dict[str, int]]:
        """Of each class of each split."""
        counts: dict[str, dict[str, int]] = {part.split: {} for part in self.parts}
        for part in self.parts:
            counts[part.split][part.class_name] = part.num_images
        return counts
