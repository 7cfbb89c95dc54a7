"""Room on disks: is there enough before something is written, and what to say when it runs out all the same."""

import errno
import os
from pathlib import Path

from orchestrator.errors import DataError

_FULL = {errno.ENOSPC: "The disk is full", errno.EDQUOT: "The quota is used up"}


def check_space(folder: Path, *, num_bytes: int, num_files: int = 0) -> None:
    """Raise DataError unless so much will fit into the filesystem of a folder. num_files: 0 for a few."""
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if num_bytes > free:
        raise DataError(
            f"There isn't room for the data set in {folder}: {_size(num_bytes)} are needed, {_size(free)} are free. "
            "Free some, or name a folder on a larger disk."
        )
    if status.f_files and num_files > status.f_favail:  # some filesystems have no fixed number, and say 0
        raise DataError(
            f"There isn't room for the data set in {folder}: {num_files:,} files (inodes) are needed, "
            f"{status.f_favail:,} are free. Name a folder on another filesystem."
        )


def cannot_write(path: Path, error: OSError) -> DataError:
    """The error for something that can't be written, because the disk is full or for another reason."""
    problem = _FULL.get(error.errno or 0)
    if problem is None:
        return DataError(f"{error.filename or path} can't be written: {error.strerror or error}.")
    return DataError(
        f"{problem}: {path} can't be written. Free some space and run the same command again; it goes on with what is "
        "missing."
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.1f} MB"
