"""The data sets that can be prepared from their official archives, and the way to a folder of images or to shards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.data.prepare import cifar, imagenet, svhn
from orchestrator.data.prepare.archives import (
    Archive,
    find_archives,
    verify_archives,
    with_sums_of,
)
from orchestrator.data.prepare.folder import parts_to_write, space_for, write_parts
from orchestrator.data.prepare.parts import ArchivedDataset
from orchestrator.data.prepare.record import FOLDER, Record, preparing, read_record, write_record
from orchestrator.data.prepare.shards import write_parts_as_shards
from orchestrator.data.shard_writer import complete_shard_set
from orchestrator.data.sharding import default_threads
from orchestrator.data.space import cannot_write, check_space
from orchestrator.errors import DataError

Progress = Callable[[str, int, int], None]
"""Told (what is being done, bytes done, bytes in all); may be called from any thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A data set as it is published."""

    choices: Sequence[Sequence[Archive]]
    """Sets of archives, any of which is enough."""
    origin: str
    open_archived: Callable[[Path, Sequence[Archive]], ArchivedDataset]
    """Given the folder of the archives and which of them to read."""


def _open_cifar(folder: Path, archives: Sequence[Archive]) -> ArchivedDataset:
    return cifar.archived_cifar(folder / archives[0].name)


DATASETS: Mapping[str, Published] = {
    "imagenet": Published(
        choices=[[imagenet.TRAIN, imagenet.VAL, imagenet.DEVKIT]],
        origin=imagenet.ORIGIN,
        open_archived=lambda folder, archives: imagenet.archived_imagenet(folder),
    ),
    "cifar10": Published(
        choices=[[cifar.CIFAR10_PYTHON], [cifar.CIFAR10_BINARY]],
        origin=cifar.ORIGIN,
        open_archived=_open_cifar,
    ),
    "cifar100": Published(
        choices=[[cifar.CIFAR100_PYTHON], [cifar.CIFAR100_BINARY]],
        origin=cifar.ORIGIN,
        open_archived=_open_cifar,
    ),
    "svhn": Published(
        choices=[[svhn.TRAIN, svhn.EXTRA, svhn.TEST]],
        origin=svhn.ORIGIN,
        open_archived=lambda folder, archives: svhn.archived_svhn(folder),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What preparing left in a folder."""

    num_images: Mapping[str, Mapping[str, int]]
    """Of each class of each split."""
    num_units: int
    """Class folders, or shards."""
    num_units_written: int
    """Those that weren't there before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A data set, where its archives are, and how to read them."""

    dataset: str
    """A key of DATASETS."""
    archives: Path
    """The folder that holds them."""
    sums: Path | None = None
    """A file that md5sum wrote, to hold the archives against in place of the official sums."""
    shard_bytes: int | None = None
    """The most that a shard takes; None for a folder in ImageNet layout."""


def archives_of(request: Request) -> tuple[Archive, ...]:
    """The archives to read, with the sums that they have to have. Raises DataError if they aren't all there."""
    published = DATASETS[request.dataset]
    archives = find_archives(request.archives, published.choices, origin=published.origin)
    return archives if request.sums is None else with_sums_of(archives, request.sums)


def open_archived(request: Request, archives: Sequence[Archive]) -> ArchivedDataset:
    """What is in the archives. Raises DataError if they don't hold what they should, UsageError without scipy."""
    published = DATASETS[request.dataset]
    return published.open_archived(request.archives, archives)


def prepare(request: Request, out: Path, *, num_threads: int | None = None, progress: Progress) -> Prepared:
    """Make a folder in ImageNet layout, or shards, of a data set's archives, or go on with making it.

    num_threads: classes, or shards, written at a time; as many as there are cores, and at most 8, if None.
    Raises DataError for archives that are missing or wrong, for a folder that is in use, holds something else, or has
    no room, and when the disk is full; UsageError without scipy, where that is needed.
    """
    archives = archives_of(request)
    num_threads = num_threads or default_threads()
    try:
        _check_out(out)
        with preparing(out):
            record = _begin(request, archives, out, progress)
            archived = open_archived(request, archives)
            if request.shard_bytes is None:
                prepared = _write_folder(archived, out, num_threads, progress)
            else:
                prepared = _write_shards(archived, out, request.shard_bytes, num_threads, progress)
            write_record(out, record.completed(archived.num_images))
    except OSError as error:
        raise cannot_write(out, error) from error
    return prepared


def _write_folder(archived: ArchivedDataset, out: Path, num_threads: int, progress: Progress) -> Prepared:
    missing = parts_to_write(out, archived.parts)
    num_bytes, num_files = space_for(missing)
    check_space(out, num_bytes=num_bytes, num_files=num_files)
    write_parts(out, missing, num_threads=num_threads, progress=lambda done, total: progress("writing", done, total))
    return Prepared(num_images=archived.num_images, num_units=len(archived.parts), num_units_written=len(missing))


def _write_shards(
    archived: ArchivedDataset, out: Path, shard_bytes: int, num_threads: int, progress: Progress
) -> Prepared:
    there = complete_shard_set(out, list(archived.num_images))
    if there is not None:
        num_shards = sum(len(index.shards.names) for index in there if index.shards is not None)
        return Prepared(num_images=archived.num_images, num_units=num_shards, num_units_written=0)
    written = write_parts_as_shards(
        out,
        archived.parts,
        shard_bytes=shard_bytes,
        num_threads=num_threads,
        listing=lambda done, total: progress("listing", done, total),
        writing=lambda done, total: progress("writing", done, total),
    )
    return Prepared(
        num_images=archived.num_images, num_units=written.num_shards, num_units_written=written.num_shards_written
    )


def _check_out(out: Path) -> None:
    """Raise DataError if a folder holds anything that wasn't prepared."""
    if out.exists() and {path.name for path in out.iterdir()} - {FOLDER} and read_record(out) is None:
        raise DataError(f"{out} isn't empty, and nothing was prepared there before. Name another folder.")


def _begin(request: Request, archives: Sequence[Archive], out: Path, progress: Progress) -> Record:
    """Check the archives, and that they are those the folder was begun with; put that down in the folder."""
    before = read_record(out)
    verified = verify_archives(
        request.archives,
        archives,
        known=before.archives if before else {},
        progress=lambda done, total: progress("checking sums", done, total),
    )
    official = request.sums is None
    record = Record(dataset=request.dataset, official=official, archives=verified, shard_bytes=request.shard_bytes)
    if before and (differences := before.differences(record)):
        raise DataError(f"{out} was prepared {', '.join(differences)}. Name another folder.")
    write_record(out, record)
    return record
