"""What `dnctl data prepare` keeps beside a data set: where it comes from, and whether all of it is there.

ROOT/.dnctl/prepared.json is written before the first image and again after the last. A folder that has one was begun by
this program, may be gone on with, and says how many images each class has to have.
"""

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from orchestrator.data.prepare.archives import Verified
from orchestrator.errors import DataError

FORMAT_VERSION = 1
FOLDER = ".dnctl"

_FILE = "prepared.json"
_LOCK = "prepare.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a prepared data set."""

    dataset: str
    official: bool
    """Whether the archives were held against the official sums."""
    archives: Mapping[str, Verified]
    """By their names."""
    shard_bytes: int | None = None
    """The most that a shard takes; None for a folder in ImageNet layout."""
    num_images: Mapping[str, Mapping[str, int]] | None = None
    """Of each class of each split, once it is all there."""

    def differences(self, other: Self) -> list[str]:
        """What makes the two different data sets, in words: "as cifar100 and not cifar10"."""
        pairs = [(f"as {self.dataset}", other.dataset)]
        if self.dataset == other.dataset:
            pairs = [
                (f"from {_sums(self.archives)}", _sums(other.archives)),
                (f"as {_layout(self.shard_bytes)}", _layout(other.shard_bytes)),
            ]
        return [f"{ours} and not {theirs}" for ours, theirs in pairs if not ours.endswith(f" {theirs}")]

    def completed(self, num_images: Mapping[str, Mapping[str, int]]) -> Self:
        """The record of the data set when all of it is there."""
        return replace(self, num_images=num_images)


def read_record(root: Path) -> Record | None:
    """The record of a data set, None if it wasn't prepared by this program. Raises DataError if it is damaged."""
    path = root / FOLDER / _FILE
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        if document.pop("format_version") != FORMAT_VERSION:
            raise ValueError("it is of another version")
        archives = {name: Verified(**found) for name, found in document.pop("archives").items()}
        return Record(**document, archives=archives)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} can't be read: {error}. If it is damaged, prepare into another folder.") from error


def write_record(root: Path, record: Record) -> None:
    """Replace the record of a data set, whole. Raises OSError."""
    path = root / FOLDER / _FILE
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with aside.open("x") as file:
            json.dump({"format_version": FORMAT_VERSION, **asdict(record)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def preparing(root: Path) -> Iterator[None]:
    """Inside, no other process prepares the same folder, which is made. Raises DataError if one does, and OSError.

    The lock is the kernel's, so it ends with the process that holds it, however that ends.
    """
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read().strip() or "another process"
            raise DataError(f"{root} is being prepared by {other}. Wait for it, or name another folder.") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _layout(shard_bytes: int | None) -> str:
    return "a folder of images" if shard_bytes is None else f"shards of {shard_bytes / 1e6:g} MB"


def _sums(archives: Mapping[str, Verified]) -> str:
    return ", ".join(f"{name} (MD5 {found.md5})" for name, found in sorted(archives.items()))
