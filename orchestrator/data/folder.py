"""Lists a folder in ImageNet layout, ROOT/SPLIT/CLASS/IMAGE, and says what is wrong with it.

Classes and files are in the order of their names' code points. Names that begin with a dot are passed over, as are
files beside the class folders. Links are followed. Every name must be UTF-8, which is what a manifest holds.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import DataError

_MAX_FAULTS_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with a data set."""

    path: str
    """Relative to the data set's root."""
    problem: str
    """Completes a sentence that begins with the path."""

    def __str__(self) -> str:
        return f"{printable(self.path)} {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a split's folder holds, before any image was opened."""

    classes: tuple[str, ...]
    stamp: str
    """See `folders_stamp`."""
    paths: list[str] = field(repr=False)
    """Of each file, relative to the split's folder."""
    labels: list[int] = field(repr=False)
    """Of each file, the position of its class in `classes`."""
    faults: list[Fault]


def list_split(root: Path, split: str) -> Listing:
    """List the class folders of a split and their files. Whatever is wrong is among the faults; nothing is raised."""
    faults: list[Fault] = []
    classes = _class_names(root, split, faults)
    stamp = folders_stamp(root, split, classes)  # before the files are listed, so that later ones change it
    paths: list[str] = []
    labels: list[int] = []
    for label, class_name in enumerate(classes):
        names = _file_names(root, f"{split}/{class_name}", faults)
        paths.extend(f"{class_name}/{name}" for name in names)
        labels.extend([label] * len(names))
    return Listing(classes=classes, stamp=stamp, paths=paths, labels=labels, faults=faults)


def folders_stamp(root: Path, split: str, classes: Sequence[str]) -> str:
    """A value that changes when files of a split are added, removed or renamed, at the cost of one stat a class.

    It is made of the modification times of the split's folder and of its class folders. A file that is overwritten in
    place doesn't change it; the loaders notice that. A folder that can't be looked at counts as one that has changed.
    """
    digest = hashlib.sha256()
    for name in ("", *classes):
        try:
            modified_ns = (root / split / name).stat().st_mtime_ns
        except OSError:
            modified_ns = -1
        digest.update(f"{name}\0{modified_ns}\0".encode())
    return digest.hexdigest()


def faults_error(root: Path, faults: Sequence[Fault], advice: str) -> DataError:
    """One error for all faults: the first of them by name, the number of the rest, and what to do."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    lines = [f"The data set at {printable(str(root))} can't be used as it is; {count}:"]
    lines += [f"  {fault}" for fault in faults[:_MAX_FAULTS_NAMED]]
    if len(faults) > _MAX_FAULTS_NAMED:
        lines.append(f"  … and {len(faults) - _MAX_FAULTS_NAMED} more")
    return DataError("\n".join([*lines, advice]))


def printable(name: str) -> str:
    """A file name as it can be shown: bytes that aren't UTF-8 as escapes, control characters too."""
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def _class_names(root: Path, split: str, faults: list[Fault]) -> tuple[str, ...]:
    folders, files = _folders_and_files(root, split, faults)
    if not folders and files:
        problem = f"holds {len(files)} files and no class folder; put each image into a folder named as its class"
        faults.append(Fault(path=split, problem=problem))
    elif not folders and not faults:
        faults.append(Fault(path=split, problem="is empty"))
    return tuple(folders)


def _file_names(root: Path, folder: str, faults: list[Fault]) -> list[str]:
    num_faults_before = len(faults)
    folders, files = _folders_and_files(root, folder, faults)
    for name in folders:
        problem = "is a folder inside a class folder; images lie directly in the folder of their class"
        faults.append(Fault(path=f"{folder}/{name}", problem=problem))
    if not files and len(faults) == num_faults_before:
        faults.append(Fault(path=folder, problem="is a class without images"))
    return files


def _folders_and_files(root: Path, folder: str, faults: list[Fault]) -> tuple[list[str], list[str]]:
    """The names in a folder, sorted, hidden ones left out; those that can't be used become faults."""
    folders: list[str] = []
    files: list[str] = []
    entries: list[os.DirEntry[str]] = []
    try:
        with os.scandir(root / folder) as scan:
            entries = sorted(scan, key=lambda entry: os.fsencode(entry.name))
    except FileNotFoundError:
        faults.append(Fault(path=folder, problem="is missing; images lie in ROOT/train/CLASS/ and ROOT/val/CLASS/"))
    except OSError as error:
        faults.append(Fault(path=folder, problem=f"can't be listed: {error.strerror}"))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            os.fsencode(entry.name).decode("utf-8")
            (folders if _is_folder(entry) else files).append(entry.name)
        except UnicodeDecodeError:
            faults.append(Fault(path=f"{folder}/{entry.name}", problem="has a name that isn't UTF-8; rename it"))
        except OSError as error:
            problem = f"is a link that can't be followed: {error.strerror}"
            faults.append(Fault(path=f"{folder}/{entry.name}", problem=problem))
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():
        return stat.S_ISDIR(entry.stat().st_mode)  # raises for a loop and for a link to nothing; is_dir() wouldn't
    return entry.is_dir(follow_symlinks=False)
