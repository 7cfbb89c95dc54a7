"""Files of a run directory: whole or absent, and faults of the filesystem said in words.

A file is written by atomic replace or by exclusive create, never edited in place. Every JSON file carries the version
of its format and a checksum; one that is unreadable, cut short, changed or of another version is a StorageError that
names it.
"""

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.errors import StorageError
from orchestrator.run import documents

LARGEST_JSON_BYTES = 64 * 2**20
"""A larger file is none of ours, and isn't read."""

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space (old checkpoints are under checkpoints/) and resume the run",
    errno.EDQUOT: "the quota is used up; free some space and resume the run",
    errno.EACCES: "no permission; check the owner and mode, or choose another place with DNCTL_STORAGE",
    errno.EPERM: "not permitted; check the owner and mode, or choose another place with DNCTL_STORAGE",
    errno.EROFS: "the filesystem is read-only; choose another place with DNCTL_STORAGE",
    errno.ENOTDIR: "a part of the path is a file; choose another place with DNCTL_STORAGE",
    errno.ELOOP: "dnctl makes no symbolic links in a run directory and follows none; put the file itself there",
    errno.EEXIST: "there is a file where a directory should be; choose another place with DNCTL_STORAGE",
}


@contextlib.contextmanager
def translated(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside into a StorageError: what was being done, where, what to do."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "check that the storage is there and works")
        raise StorageError(f"cannot {action} {path}: {error.strerror or error}: {advice}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` with `content` so that a reader sees the old file or the new one, also after a power cut."""
    with translated("write", path):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            write_through(temporary, content)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def write_through(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk. Raises OSError."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Wait until a directory's entries are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_exclusively(path: Path, content: bytes) -> bool:
    """Create a file that must not exist yet, with its whole content at once; False if somebody else was first."""
    with translated("create", path):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            write_through(temporary, content)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
        return True


def require(path: Path) -> None:
    """Raise StorageError if there is nothing at `path`."""
    with translated("find", path):
        path.stat()


def make_directory(path: Path, *, parents: bool = False) -> None:
    """Make a directory; one that is there already is fine.

    parents: make them, too. Never within a run: where its storage is away, nothing of it must come up in that place.
    """
    with translated("make the directory", path):
        path.mkdir(parents=parents, exist_ok=True)


def open_plain(path: Path) -> BinaryIO:
    """Open a file to read it; what would lead elsewhere, hang or never end is refused. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR)) if stat.S_ISDIR(mode) else OSError("no plain file")
    return os.fdopen(descriptor, "rb")


def json_bytes(document: dict[str, Any], *, format_version: int = 1) -> bytes:
    """A JSON object with its format version and checksum, as it is written."""
    versioned = {"format_version": format_version, **document}
    return documents.seal(json.dumps(versioned, indent=2, ensure_ascii=False).encode())


def write_json(path: Path, document: dict[str, Any], *, format_version: int = 1) -> None:
    """Write a JSON object with its format version and checksum by atomic replace."""
    write_atomically(path, json_bytes(document, format_version=format_version))


def read_json(path: Path, *, format_version: int = 1) -> dict[str, Any]:
    """Read a JSON object and take its format version off. Raises StorageError; FileNotFoundError if there is none."""
    try:
        with translated("read", path), open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size  # a buffer of the largest size for each of them would take longer
            content = file.read(min(size, LARGEST_JSON_BYTES) + 1)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise
    if len(content) > LARGEST_JSON_BYTES:
        raise StorageError(f"{path} is damaged: it is larger than any that dnctl writes; restore it")
    try:
        document = documents.parse_sealed(content)
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}; restore it or start a new run") from error
    found = document.pop("format_version", None)
    if found != format_version:
        raise StorageError(
            f"{path} has format version {found}, this dnctl reads {format_version}: use the dnctl that wrote it"
        )
    return document
