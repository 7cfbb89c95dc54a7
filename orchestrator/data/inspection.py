"""Looks at many images at a time and sorts them into those that can be used and those that can't."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from orchestrator.data.folder import Fault
from orchestrator.data.image import BadImageError, ImageHeader, quiet_pil

Progress = Callable[[int, int], None]
"""Told (images looked at, images to look at)."""

Look = Callable[[str, int], ImageHeader]
"""Looks at the image at a position of a split, or raises BadImageError. Called from many threads."""

_FILES_PER_TASK = 64


@dataclass(slots=True)
class Inspected:
    """What the images of a split turned out to be: columns of those that can be used, faults of the others."""

    positions: list[int] = field(default_factory=list)
    """In the list of paths that was given."""
    widths: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    num_bytes: list[int] = field(default_factory=list)
    sha256: list[bytes] = field(default_factory=list)
    """Of the files, where they were decoded in full."""
    damaged: list[Fault] = field(default_factory=list)

    def add(self, position: int, header: ImageHeader) -> None:
        """Take in an image that can be used."""
        self.positions.append(position)
        self.widths.append(header.width)
        self.heights.append(header.height)
        self.num_bytes.append(header.num_bytes)
        self.sha256.append(header.sha256)


def inspect_images(
    paths: Mapping[str, Sequence[str]], look: Look, *, num_threads: int, progress: Progress
) -> dict[str, Inspected]:
    """Look at the images of each split, in parallel; the outcome is in the order given.

    paths: of each split, relative to its folder; what faults are called by.
    """
    inspected = {split: Inspected() for split in paths}
    tasks = [
        (split, range(start, min(start + _FILES_PER_TASK, len(paths[split]))))
        for split in paths
        for start in range(0, len(paths[split]), _FILES_PER_TASK)
    ]
    num_files = sum(len(positions) for _, positions in tasks)
    num_done = 0

    def inspect(task: tuple[str, range]) -> list[ImageHeader | Fault]:
        split, positions = task
        return [_inspect_one(look, split, position, paths[split][position]) for position in positions]

    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="dnctl-index")
    try:
        with quiet_pil():
            for (split, positions), outcomes in zip(tasks, executor.map(inspect, tasks), strict=True):
                for position, outcome in zip(positions, outcomes, strict=True):
                    if isinstance(outcome, Fault):
                        inspected[split].damaged.append(outcome)
                    else:
                        inspected[split].add(position, outcome)
                num_done += len(positions)
                progress(num_done, num_files)
    finally:
        executor.shutdown(cancel_futures=True)  # so that an interrupt doesn't wait for the whole data set
    return inspected


def _inspect_one(look: Look, split: str, position: int, path: str) -> ImageHeader | Fault:
    try:
        return look(split, position)
    except BadImageError as error:
        return Fault(path=f"{split}/{path}", problem=str(error))
