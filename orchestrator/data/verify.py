"""Verifies a data set: every image decoded and hashed, classes counted and held against what they should be.

A data set that can be used leaves its manifests behind, as indexing does, so that no image is looked at again for a
run. Duplicates are reported and aren't faults: ImageNet has some.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.data.expectation import Expectation, expectation_of, imagenet_classes
from orchestrator.data.folder import Fault, Listing, list_split
from orchestrator.data.image import BadImageError, ImageHeader, inspect_encoded, inspect_image
from orchestrator.data.index import check_root, class_faults, dataset_of, default_threads, index_dataset, keep_manifest
from orchestrator.data.inspection import Inspected, Look, Progress, inspect_images
from orchestrator.data.prepare.record import Record, read_record
from orchestrator.data.shard_set import is_shard_set
from orchestrator.data.source import open_source
from orchestrator.data.storage import is_url
from orchestrator.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSummary:
    """What there is of a split."""

    num_images: int
    """Files, damaged ones included."""
    num_classes: int
    num_bytes: int
    """Of the images that can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What verifying found."""

    splits: Mapping[str, SplitSummary]
    expectation: Expectation | None
    """What the counts were held against; None if nobody knows what they should be."""
    faults: Sequence[Fault]
    """Whatever makes it another data set than it should be, or keeps it from being used."""
    duplicates: Sequence[tuple[str, ...]]
    """Files with the same content: SPLIT/CLASS/IMAGE of each."""
    order: str
    """What is known of the order of the classes, in a sentence."""
    fingerprint: str | None
    """What a run records. None if there are faults."""
    contents: str
    """"sha256:…" of the SHA-256 of each image, training images first, then the others, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """A data set that can be looked through: a folder, or shards."""

    listings: Mapping[str, Listing]
    look: Look
    record: Record | None
    fingerprint: Callable[[Mapping[str, Inspected]], str]
    """Given what its images turned out to be."""


def verify_dataset(
    root: str | Path, *, devkit: Path | None = None, num_threads: int | None = None, progress: Progress | None = None
) -> Report:
    """Look at everything in a data set: a folder in ImageNet layout, or shards on disk or in an object store.

    devkit: ImageNet's, to hold the number of images of each class against.
    Raises DataError if there is no data set, or a file that says what should be there can't be read.
    """
    with ExitStack() as resources:
        contents = _shards(root, resources) if is_shard_set(root) else _folder(Path(root).absolute())
        listings = contents.listings
        found = {split: _num_images(listing) for split, listing in listings.items()}
        expectation = expectation_of(contents.record, found, devkit=devkit)
        inspected = inspect_images(
            {split: listing.paths for split, listing in listings.items()},
            contents.look,
            num_threads=num_threads or default_threads(),
            progress=progress or (lambda done, total: None),
        )
    faults = _faults(listings, inspected, found, expectation)
    return Report(
        splits={split: _summary(listings[split], inspected[split]) for split in listings},
        expectation=expectation,
        faults=faults,
        duplicates=_duplicates(listings, inspected),
        order=_order(listings["train"].classes),
        fingerprint=None if faults else contents.fingerprint(inspected),
        contents=_contents(inspected),
    )


def _folder(root: Path) -> _Contents:
    check_root(root)
    listings = {split: list_split(root, split) for split in ("train", "val")}

    def fingerprint(inspected: Mapping[str, Inspected]) -> str:
        train, val = (
            keep_manifest(root, split, listing, inspected[split], full_decode=True)
            for split, listing in listings.items()
        )
        return dataset_of(train, val).fingerprint

    return _Contents(
        listings=listings,
        look=lambda split, n: inspect_image(root / split / listings[split].paths[n], full_decode=True),
        record=read_record(root),
        fingerprint=fingerprint,
    )


def _shards(root: str | Path, resources: ExitStack) -> _Contents:
    """resources: what closes the shards again."""
    dataset = index_dataset(root)
    manifests = {"train": dataset.train, "val": dataset.val}
    sources = {split: open_source(manifest) for split, manifest in manifests.items()}
    for source in sources.values():
        resources.callback(source.close)

    def look(split: str, position: int) -> ImageHeader:
        try:
            return inspect_encoded(sources[split].read(position), full_decode=True)
        except DataError as error:
            raise BadImageError(f"can't be read: {error}") from error

    listings = {
        split: Listing(
            classes=manifest.classes,
            stamp=manifest.stamp,
            paths=manifest.relative_paths.to_pylist(),
            labels=manifest.labels.tolist(),
            faults=[],
        )
        for split, manifest in manifests.items()
    }
    return _Contents(
        listings=listings,
        look=look,
        record=None if is_url(root) else read_record(Path(root)),
        fingerprint=lambda inspected: dataset.fingerprint,
    )


def _num_images(listing: Listing) -> dict[str, int]:
    by_label = Counter(listing.labels)
    return {name: by_label[label] for label, name in enumerate(listing.classes)}


def _faults(
    listings: Mapping[str, Listing],
    inspected: Mapping[str, Inspected],
    found: Mapping[str, Mapping[str, int]],
    expectation: Expectation | None,
) -> list[Fault]:
    faults = [fault for listing in listings.values() for fault in listing.faults]
    if expectation is None:
        faults += class_faults({split: listing.classes for split, listing in listings.items()})
    else:
        named = {fault.path for fault in faults}
        faults += [fault for fault in expectation.faults(found) if fault.path not in named]
    return faults + [fault for images in inspected.values() for fault in images.damaged]


def _summary(listing: Listing, inspected: Inspected) -> SplitSummary:
    return SplitSummary(
        num_images=len(listing.paths), num_classes=len(listing.classes), num_bytes=sum(inspected.num_bytes)
    )


def _duplicates(listings: Mapping[str, Listing], inspected: Mapping[str, Inspected]) -> list[tuple[str, ...]]:
    places = [(split, position) for split, images in inspected.items() for position in images.positions]
    sums = [sha256 for images in inspected.values() for sha256 in images.sha256]
    # Sorting numbers tells the few that may be duplicates without a table of all 1.3 million.
    heads = np.frombuffer(b"".join(sha256[:8] for sha256 in sums), dtype=np.uint64)
    _, first, counts = np.unique(heads, return_index=True, return_counts=True)
    several = np.isin(heads, heads[first[counts > 1]])
    groups: dict[bytes, list[str]] = defaultdict(list)
    for row in np.flatnonzero(several):
        split, position = places[row]
        groups[sums[row]].append(f"{split}/{listings[split].paths[position]}")
    return [tuple(paths) for paths in groups.values() if len(paths) > 1]


def _order(classes: Sequence[str]) -> str:
    if tuple(classes) == imagenet_classes():
        return "ImageNet's: labels are those of published weights."
    if classes and all(name.isdecimal() and name.isascii() for name in classes):
        by_number = sorted(classes, key=int)
        if list(classes) != by_number:
            name, other = next(pair for pair in zip(classes, by_number, strict=True) if pair[0] != pair[1])
            return f"of the names, and not of the numbers that they are: {name} comes where {other} would be."
    return "of the names' code points."


def _contents(inspected: Mapping[str, Inspected]) -> str:
    digest = hashlib.sha256()
    for images in inspected.values():
        digest.update(b"".join(images.sha256))
    return f"sha256:{digest.hexdigest()}"
