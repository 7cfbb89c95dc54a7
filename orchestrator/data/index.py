"""Makes the manifests of a data set: each image is checked once, in parallel, and all faults are reported together.

A manifest is kept as ROOT/.dnctl/SPLIT.arrow, or in the user's cache folder where ROOT can't be written, and made
again when the folder has changed. The same files give the same fingerprint, wherever they lie and however many
threads looked at them.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.data.folder import Fault, Listing, faults_error, folders_stamp, list_split, printable
from orchestrator.data.image import BadImageError, inspect_image
from orchestrator.data.inspection import Inspected, Progress, inspect_images
from orchestrator.data.manifest import Manifest, Rows, open_manifest, write_manifest
from orchestrator.data.shard_set import is_shard_set, open_shard_set
from orchestrator.errors import DataError, UsageError

Damaged = Literal["refuse", "skip"]
"""What is done about damaged images: all of them named and none used, or left out of the manifest."""

_ADVICE = (
    "Repair or remove what is named. Damaged images, but nothing else, can be left out instead: "
    "dnctl data index ROOT --damaged skip, or data.damaged=skip in the recipe."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A training and a validation split with the same classes."""

    train: Manifest
    val: Manifest
    fingerprint: str
    """"sha256:…" of both splits' fingerprints."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; a label is a position in here."""
        return self.train.classes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    full_decode: bool
    damaged: Damaged
    num_threads: int
    cache_dir: Path
    progress: Progress


def index_dataset(
    root: str | Path,
    *,
    full_decode: bool = False,
    damaged: Damaged = "refuse",
    progress: Progress | None = None,
    num_threads: int | None = None,
    cache_dir: Path | None = None,
) -> Dataset:
    """The manifests of ROOT/train and ROOT/val, made where there are none. Raises DataError with all faults of both.

    full_decode: decode every image, where otherwise the ends of a JPEG are looked at.
    num_threads: images looked at at a time; twice as many as there are cores if None.
    cache_dir: where manifests go if ROOT can't be written; $XDG_CACHE_HOME/dnctl or ~/.cache/dnctl if None.
    """
    settings = _settings(full_decode, damaged, progress, num_threads, cache_dir)
    manifests = _found_or_made(root, ("train", "val"), settings)
    return dataset_of(manifests["train"], manifests["val"])


def dataset_of(train: Manifest, val: Manifest) -> Dataset:
    """Two splits as a data set. They have the same classes."""
    both = hashlib.sha256(f"{train.fingerprint}\n{val.fingerprint}\n".encode())
    return Dataset(train=train, val=val, fingerprint=f"sha256:{both.hexdigest()}")


def build_manifest(
    root: str | Path,
    split: str,
    *,
    full_decode: bool = False,
    damaged: Damaged = "refuse",
    progress: Progress | None = None,
    num_threads: int | None = None,
    cache_dir: Path | None = None,
) -> Manifest:
    """The manifest of one split, made if there is none. Arguments and errors as for index_dataset."""
    settings = _settings(full_decode, damaged, progress, num_threads, cache_dir)
    return _found_or_made(root, (split,), settings)[split]


def _settings(
    full_decode: bool,
    damaged: Damaged,
    progress: Progress | None,
    num_threads: int | None,
    cache_dir: Path | None,
) -> _Settings:
    return _Settings(
        full_decode=full_decode,
        damaged=damaged,
        num_threads=num_threads or default_threads(),
        cache_dir=cache_dir or _user_cache(),
        progress=progress or (lambda done, total: None),
    )


def _found_or_made(root: str | Path, splits: Sequence[str], settings: _Settings) -> dict[str, Manifest]:
    """The manifests of a folder of images, or the indexes of a shard set."""
    if not is_shard_set(root):
        return _manifests(Path(root).absolute(), splits, settings)
    manifests = open_shard_set(root, splits, cache_dir=settings.cache_dir)
    if settings.full_decode and not all(manifest.full_decode for manifest in manifests.values()):
        raise UsageError(f"{root} is a shard set; every image is decoded before it is made: index its folder instead.")
    faults = class_faults({split: manifest.classes for split, manifest in manifests.items()})
    if faults:
        raise faults_error(Path(root), faults, "Make the shards of both splits again, from one data set.")
    return manifests


def default_threads() -> int:
    """Images looked at at a time: twice as many as there are cores, since they wait for the disk, too."""
    return 2 * (os.cpu_count() or 1)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dnctl"


def _manifests(root: Path, splits: Sequence[str], settings: _Settings) -> dict[str, Manifest]:
    check_root(root)
    current = {split: _open_current(root, split, settings) for split in splits}
    listings = {split: list_split(root, split) for split, manifest in current.items() if manifest is None}
    known: dict[str, Manifest | Listing] = {s: m for s, m in current.items() if m is not None} | listings

    faults = [fault for listing in listings.values() for fault in listing.faults]
    faults += class_faults({split: known[split].classes for split in splits})
    inspected = inspect_images(
        {split: listing.paths for split, listing in listings.items()},
        lambda split, n: inspect_image(root / split / listings[split].paths[n], full_decode=settings.full_decode),
        num_threads=settings.num_threads,
        progress=settings.progress,
    )
    for split, listing in listings.items():
        faults += _emptied_classes(split, listing, inspected[split])
    if settings.damaged == "refuse":
        left_out = [inspected[s].damaged if m is None else m.left_out for s, m in current.items()]
        faults += [fault for split_faults in left_out for fault in split_faults]
    if faults:
        raise faults_error(root, faults, _ADVICE)

    for split, listing in listings.items():
        current[split] = keep_manifest(
            root,
            split,
            listing,
            inspected[split],
            full_decode=settings.full_decode,
            cache_dir=settings.cache_dir,
        )
    return {split: manifest for split, manifest in current.items() if manifest is not None}


def check_root(root: Path) -> None:
    """Raise DataError unless there is a folder that can be listed."""
    try:
        os.scandir(root).close()
    except OSError as error:
        raise DataError(
            f"The data set {printable(str(root))} can't be listed: {error.strerror}. "
            "Its root is a folder with train/ and val/ in it."
        ) from error


def _open_current(root: Path, split: str, settings: _Settings) -> Manifest | None:
    """The manifest that was made earlier, if the folder is still as it was then and was looked at as closely."""
    for path in _places(root, split, settings.cache_dir):
        try:
            manifest = open_manifest(path, root=root)
        except (OSError, DataError):
            continue
        if (
            manifest.stamp == folders_stamp(root, split, manifest.classes)
            and (manifest.full_decode or not settings.full_decode)
            and all(_is_damaged(root / fault.path, manifest.full_decode) for fault in manifest.left_out)
        ):
            return manifest
    return None


def _places(root: Path, split: str, cache_dir: Path) -> tuple[Path, Path]:
    """Where a manifest may be, the preferred place first."""
    folder = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
    return root / ".dnctl" / f"{split}.arrow", cache_dir / "manifests" / folder / f"{split}.arrow"


def _is_damaged(path: Path, full_decode: bool) -> bool:
    try:
        inspect_image(path, full_decode=full_decode)
    except BadImageError:
        return True
    return False


def class_faults(classes: Mapping[str, Sequence[str]]) -> list[Fault]:
    """A fault for each class that one split has and another one, not empty, lacks."""
    faults = []
    for split, names in classes.items():
        others = [other for other in classes if other != split and classes[other]]
        for other in others if names else ():
            missing = sorted(set(classes[other]) - set(names))
            faults += [Fault(path=f"{split}/{name}", problem=f"is missing; {other} has this class") for name in missing]
    return faults


def _emptied_classes(split: str, listing: Listing, inspected: Inspected) -> list[Fault]:
    """A fault for each class all of whose images are damaged."""
    emptied = set(listing.labels) - {listing.labels[position] for position in inspected.positions}
    return [Fault(path=f"{split}/{listing.classes[c]}", problem="has damaged images alone") for c in sorted(emptied)]


def keep_manifest(
    root: Path, split: str, listing: Listing, inspected: Inspected, *, full_decode: bool, cache_dir: Path | None = None
) -> Manifest:
    """Write the manifest of a split that was looked at, where it is found again. Arguments as for index_dataset.

    Raises DataError if it can be written nowhere.
    """
    rows = Rows(
        relative_paths=[listing.paths[position] for position in inspected.positions],
        labels=[listing.labels[position] for position in inspected.positions],
        widths=inspected.widths,
        heights=inspected.heights,
        num_bytes=inspected.num_bytes,
    )
    problems = []
    for path in _places(root, split, cache_dir or _user_cache()):
        try:
            write_manifest(
                path,
                rows,
                root=root,
                split=split,
                classes=listing.classes,
                left_out=inspected.damaged,
                full_decode=full_decode,
                stamp=listing.stamp,
            )
            return open_manifest(path, root=root)
        except OSError as error:
            problems.append(f"  {path}: {error.strerror}")
    raise DataError("\n".join([f"The manifest of {root / split} can be written nowhere:", *problems]))
