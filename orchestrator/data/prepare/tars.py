"""Looks into tar archives without extracting them: which files they hold, where each begins, and their contents.

Nothing is ever written where an archive says, so no member can escape; one that tries to is refused all the same,
with the whole archive. So are links, devices and whatever else isn't a file or a folder.
"""

import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.data.folder import printable
from orchestrator.data.prepare.parts import Images
from orchestrator.data.storage import OpenFile
from orchestrator.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file in an uncompressed tar archive."""

    name: str
    offset: int
    """Of its first byte in the archive's file."""
    num_bytes: int


def tar_members(archive: Path, *, within: Member | None = None) -> list[Member]:
    """The files in an uncompressed tar archive, or in a tar archive that is itself a member of it, in their order.

    Raises DataError if the archive is damaged, cut short, or holds anything but files and folders in their places.
    """
    where = str(archive) if within is None else f"{archive}, in its {within.name},"
    members = []
    with _explained(where), archive.open("rb") as file:
        end = os.fstat(file.fileno()).st_size if within is None else within.offset + within.num_bytes
        file.seek(0 if within is None else within.offset)
        with tarfile.open(fileobj=file, mode="r:") as tar:  # not compressed; offsets count from the file's beginning
            while (info := tar.next()) is not None and info.offset < end:
                name = _checked_name(info, where)
                if info.offset_data + info.size > end:
                    raise tarfile.ReadError(f"it ends in the middle of {info.name}")
                if name is not None:
                    members.append(Member(name=name, offset=info.offset_data, num_bytes=info.size))
            _check_end(file.fileno(), tar.offset, end)
    _check_unique([member.name for member in members], where)
    return members


def read_members(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The contents of files in a tar archive, compressed or not, by their last names. Raises DataError as above."""
    contents: dict[str, bytes] = {}
    with _explained(str(archive)), tarfile.open(archive) as tar:
        for info in tar:
            path = _checked_name(info, str(archive))
            if path is not None and (name := PurePosixPath(path).name) in names:
                _check_unique([*contents, name], str(archive))
                contents[name] = _content(tar, info)
    if missing := [name for name in names if name not in contents]:
        raise DataError(f"{archive} doesn't hold {', '.join(missing)}: it is another archive, or a damaged one.")
    return contents


class Archived:
    """An uncompressed archive whose members are read where they lie, from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explained(str(path)):
            self._file = OpenFile(path)

    def images(self, members: Sequence[Member]) -> Images:
        """Members as the images of a part."""
        return Images(
            names=[member.name for member in members],
            num_bytes=[member.num_bytes for member in members],
            read=lambda position: self._read(members[position]),
        )

    def _read(self, member: Member) -> bytes:
        with _explained(str(self.path)):
            content = os.pread(self._file.descriptor, member.num_bytes, member.offset)
        if len(content) != member.num_bytes:
            raise DataError(f"{self.path} is cut short: it ends in the middle of {member.name}.")
        return content


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    content = b"" if file is None else file.read()
    if len(content) != info.size:
        raise tarfile.ReadError(f"it ends in the middle of {info.name}")
    return content


def _checked_name(info: tarfile.TarInfo, where: str) -> str | None:
    """A file's path inside the archive, None for a folder; DataError for what has no business there."""
    path = PurePosixPath(info.name)
    if info.issym() or info.islnk():
        problem = f"is a link to {printable(info.linkname)}"
    elif path.is_absolute() or ".." in path.parts:
        problem = "points out of the folder that it would be extracted to"
    elif info.isdir():
        return None
    elif not info.isreg() or info.issparse():
        problem = "is neither a file nor a folder"
    else:
        return str(path)
    raise DataError(f"{where} is refused: its member {printable(info.name)} {problem}. Official archives have no such.")


def _check_unique(names: Sequence[str], where: str) -> None:
    if len(set(names)) != len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise DataError(f"{where} is refused: it holds {printable(twice)} twice.")


def _check_end(file: int, offset: int, end: int) -> None:
    """Raise ReadError unless there are zeros, or nothing: tarfile takes a header that it can't read for the end."""
    block = os.pread(file, min(tarfile.BLOCKSIZE, max(0, end - offset)), offset)
    if block not in (b"", bytes(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"what follows byte {offset} is no tar archive")


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{where} is damaged or cut short: {error}. Download it again.") from error
    except OSError as error:
        raise DataError(f"{where} can't be read: {error.strerror or error}.") from error
