"""Official archives: are they all there, and is each of them what its publisher says, by its MD5 sum.

A sum that was found right is remembered with the file's size and modification time, so that going on after an
interruption doesn't read 150 GB once more.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from orchestrator.errors import DataError

_CHUNK_BYTES = 1 << 22

BytesDone = Callable[[int, int], None]
"""Told (bytes done, bytes in all); may be called from any thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A file as its publisher offers it."""

    name: str
    md5: str
    num_bytes: int | None = None
    """None where the publisher's size isn't known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A file whose sum was found right, and what it looked like then."""

    md5: str
    num_bytes: int
    modified_ns: int


def find_archives(folder: Path, choices: Sequence[Sequence[Archive]], *, origin: str) -> tuple[Archive, ...]:
    """The first of several sets of archives that is in the folder as a whole. Raises DataError naming what is missing.

    origin: where a person gets them, for the message.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; --archives is the folder that holds {_listed(choices[0])}.")
    for archives in choices:
        if all((folder / archive.name).is_file() for archive in archives):
            return tuple(archives)
    missing = [archive for archive in choices[0] if not (folder / archive.name).is_file()]
    others = "".join(f" or {_listed(archives)}" for archives in choices[1:])
    raise DataError(f"{folder} has no {_listed(missing)}{others}. The official archives are offered at {origin}.")


def with_sums_of(archives: Sequence[Archive], sums_file: Path) -> tuple[Archive, ...]:
    """The archives with the sums of a file that md5sum wrote, in place of the official ones."""
    try:
        lines = sums_file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The sums in {sums_file} can't be read: {error}.") from error
    matches = [re.fullmatch(r"([0-9a-f]{32}) [ *](?:.*/)?([^/]+)", line) for line in lines if line.strip()]
    if not all(matches):
        raise DataError(f"{sums_file} isn't what md5sum writes: lines of 32 hexadecimal digits and a file's name.")
    sums = {match[2]: match[1] for match in matches if match}
    if missing := [archive for archive in archives if archive.name not in sums]:
        raise DataError(f"{sums_file} has no sum of {_listed(missing)}.")
    return tuple(Archive(name=archive.name, md5=sums[archive.name]) for archive in archives)


def verify_archives(
    folder: Path, archives: Sequence[Archive], *, known: Mapping[str, Verified], progress: BytesDone
) -> dict[str, Verified]:
    """Compare the MD5 sum of each archive with what it has to be. Raises DataError that names all that differ.

    known: what was found right before, by name; an archive that still looks the same isn't read again.
    """
    found = {archive.name: _look(folder / archive.name, archive.md5) for archive in archives}
    wrong = [_wrong_size(folder, archive, found[archive.name]) for archive in archives]
    unknown = [archive for archive in archives if known.get(archive.name) != found[archive.name]]
    if not any(wrong) and unknown:
        wrong = _wrong_sums(folder, unknown, sum(found[archive.name].num_bytes for archive in unknown), progress)
    if any(wrong):
        advice = "Download what is named again, or hold archives of your own against their own sums with --sums FILE."
        raise DataError("\n".join([*filter(None, wrong), advice]))
    return found


def _look(path: Path, md5: str) -> Verified:
    status = path.stat()
    return Verified(md5=md5, num_bytes=status.st_size, modified_ns=status.st_mtime_ns)


def _wrong_size(folder: Path, archive: Archive, found: Verified) -> str:
    if archive.num_bytes is None or found.num_bytes == archive.num_bytes:
        return ""
    problem = "is cut short" if found.num_bytes < archive.num_bytes else "is another file"
    return (
        f"{folder / archive.name} {problem}: it has {found.num_bytes:,} bytes, the official one {archive.num_bytes:,}."
    )


def _wrong_sums(folder: Path, archives: Sequence[Archive], num_bytes: int, progress: BytesDone) -> list[str]:
    done = 0
    lock, stopped = Lock(), Event()

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            progress(done, num_bytes)

    def check(archive: Archive) -> str:
        path = folder / archive.name
        try:
            found = _md5(path, advance, stopped)
        except OSError as error:
            raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
        return "" if found == archive.md5 else f"{path} has the MD5 sum {found}, and should have {archive.md5}."

    with ThreadPoolExecutor(len(archives), thread_name_prefix="dnctl-md5") as executor:
        try:
            return list(executor.map(check, archives))
        finally:
            stopped.set()  # so that an interrupt doesn't wait for 150 GB


def _md5(path: Path, advance: Callable[[int], None], stopped: Event) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while not stopped.is_set() and (chunk := file.read(_CHUNK_BYTES)):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def _listed(archives: Sequence[Archive]) -> str:
    *first, last = [archive.name for archive in archives]
    return f"{', '.join(first)} and {last}" if first else last
