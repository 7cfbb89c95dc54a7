"""Checkpoints on storage: either whole or absent. What is in their files is train/checkpoint.py's business.

A checkpoint is a directory `step-<step>.<attempt>` of files, a MANIFEST.json with the size and SHA-256 of each, and a
COMMITTED marker, written last, with the SHA-256 of the manifest. Without a marker that fits there is no checkpoint.
Reading verifies every byte and hands out the bytes that were verified. A manifest may be anybody's: names lead nowhere
else, symbolic links aren't followed, and nothing is read that is larger than it says.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.errors import CheckpointError, StorageError
from orchestrator.run import documents, files
from orchestrator.run.contents import check_contents
from orchestrator.run.patience import patiently

_log = logging.getLogger(__name__)

MANIFEST = "MANIFEST.json"
COMMITTED = "COMMITTED"
READING_PATIENCE_S = 60.0
"""So long an I/O error is taken for the storage's, and after that for the checkpoint's."""
_NAME = re.compile(r"step-([0-9]{8,18})\.([0-9]{1,18})")
_FILE_NAME = re.compile(r"\w[\w.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
LARGEST_FILE_BYTES = 16 * 2**30
"""Weights of four billion parameters. A manifest that says more is none of ours."""
LARGEST_MANIFEST_BYTES = 2**20
BLOCK_BYTES = 8 * 2**20

OnBytes = Callable[[int], None]
"""Told of every so many bytes that were read and hashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A committed checkpoint; whether it is intact shows when it is read."""

    path: Path
    step: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What MANIFEST.json says."""

    files: Mapping[str, tuple[int, str]]
    """By name: size in bytes and SHA-256. Names are plain ones, in the checkpoint's directory."""
    metrics: Mapping[str, float | None]


def checkpoint_path(directory: Path, *, step: int, attempt: int) -> Path:
    """Where the checkpoint of a step lies."""
    return directory / f"step-{step:08d}.{attempt}"


def write_checkpoint(
    path: Path, contents: Mapping[str, bytes], *, metrics: Mapping[str, float | None], may_commit: Callable[[], None]
) -> None:
    """Write a checkpoint; it exists once the last byte is on the disk.

    metrics: figures by which the best one is chosen, kept in the manifest.
    may_commit: called right before the marker is written; raises if this attempt was taken over.
    Raises StorageError; what had been written by then is removed.
    """
    manifest = {
        "format_version": 1,
        "files": {name: _describe(content) for name, content in contents.items()},
        "metrics": dict(metrics),
    }
    manifest_bytes = json.dumps(manifest, indent=2).encode()
    try:
        with files.translated("write the checkpoint", path):
            shutil.rmtree(path, ignore_errors=True)
            path.parent.mkdir(exist_ok=True)  # not the run's directory: where that is away, nothing is to be made
            path.mkdir()
            for name, content in contents.items():
                files.write_through(path / name, content)
            files.write_through(path / MANIFEST, manifest_bytes)
            files.sync_directory(path)
        may_commit()
        files.write_atomically(path / COMMITTED, hashlib.sha256(manifest_bytes).hexdigest().encode())
        with files.translated("write the checkpoint", path):
            files.sync_directory(path.parent)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _describe(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def list_checkpoints(directory: Path) -> list[Checkpoint]:
    """All committed checkpoints, oldest first: by step, then by attempt."""
    return [checkpoint for checkpoint in list_entries(directory) if is_committed(checkpoint)]


def newest_step(directory: Path) -> int:
    """Of the newest committed checkpoint, verified or not; -1 if there is none."""
    return max((checkpoint.step for checkpoint in list_checkpoints(directory)), default=-1)


def is_checkpoint_path(path: Path) -> bool:
    """Whether a path is a directory that is called as checkpoints are, whole or not."""
    return _NAME.fullmatch(path.name) is not None and path.is_dir()


def checkpoint_at(path: Path) -> Checkpoint:
    """The checkpoint that a directory is by its name."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return Checkpoint(path=path, step=int(match[1]), attempt=int(match[2]))


def list_entries(directory: Path) -> list[Checkpoint]:
    """All that is called as checkpoints are, committed or not, oldest first: by step, then by attempt."""
    with files.translated("list the checkpoints in", directory):
        if not directory.is_dir():
            return []
        entries = [checkpoint_at(entry) for entry in directory.iterdir() if _NAME.fullmatch(entry.name)]
    return sorted(entries, key=lambda checkpoint: (checkpoint.step, checkpoint.attempt))


def is_committed(checkpoint: Checkpoint) -> bool:
    """Whether its marker is there."""
    with files.translated("look for the marker of", checkpoint.path):
        return (checkpoint.path / COMMITTED).is_file()


def read_checkpoint(path: Path, *, on_bytes: OnBytes = lambda _: None) -> dict[str, bytes]:
    """The verified contents of a checkpoint's files by name. Raises CheckpointError that names what is wrong."""
    contents = {}
    manifest = read_manifest(path)
    check_sizes(path, manifest)
    for name, (num_bytes, sha256) in manifest.files.items():
        try:
            contents[name] = content = _read_bytes(path, name, num_bytes, on_bytes)
        except MemoryError:
            raise _damaged(path, f"{name} has {num_bytes} bytes, more than there is memory for") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _damaged(path, f"{name} doesn't have the SHA-256 that it was written with")
    return contents


def check_sizes(path: Path, manifest: Manifest) -> None:
    """Hold the sizes of a checkpoint's files against its manifest, without reading them. Raises CheckpointError."""
    for name, (num_bytes, _) in manifest.files.items():
        with _opened(path, name) as file:
            found = os.fstat(file.fileno()).st_size
        if found != num_bytes:
            raise _damaged(path, f"{name} has {found} bytes instead of {num_bytes}")


def read_manifest(path: Path) -> Manifest:
    """The manifest that was committed. It names files of this directory alone, whoever wrote it.

    Raises CheckpointError.
    """
    if path.is_symlink():
        raise _damaged(path, "it is a symbolic link, and what it leads to isn't trusted")
    content = _read_bytes(path, MANIFEST, LARGEST_MANIFEST_BYTES)
    marker = _read_bytes(path, COMMITTED, LARGEST_MANIFEST_BYTES)
    if hashlib.sha256(content).hexdigest().encode() != marker.strip():
        raise _damaged(path, f"{MANIFEST} and {COMMITTED} don't fit together")
    return _parse_manifest(path, content)


def _parse_manifest(path: Path, content: bytes) -> Manifest:
    try:
        document = documents.parse(content)
        if document["format_version"] != 1:
            raise CheckpointError(
                f"checkpoint {path}: format version {document['format_version']}, this dnctl reads 1: use the dnctl "
                "that wrote it"
            )
        described = {name: (int(file["bytes"]), str(file["sha256"])) for name, file in document["files"].items()}
        metrics = {name: None if value is None else float(value) for name, value in document["metrics"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, f"{MANIFEST} isn't one that dnctl writes ({error!r})") from error
    for name, (num_bytes, sha256) in described.items():
        if not _FILE_NAME.fullmatch(name):
            raise _damaged(path, f"{MANIFEST} names {name!r}, which is no file of a checkpoint, and isn't trusted")
        if not 0 <= num_bytes <= LARGEST_FILE_BYTES or not _SHA256.fullmatch(sha256):
            raise _damaged(path, f"{MANIFEST} says of {name} what can't be: {num_bytes} bytes, SHA-256 {sha256:.70}")
    return Manifest(files=described, metrics=metrics)


def _read_bytes(path: Path, name: str, max_bytes: int, on_bytes: OnBytes = lambda _: None) -> bytes:
    """The first `max_bytes` of a file."""
    blocks = []
    with _opened(path, name) as file:
        while max_bytes > 0 and (block := file.read(min(BLOCK_BYTES, max_bytes))):
            blocks.append(block)
            max_bytes -= len(block)
            on_bytes(len(block))
    return b"".join(blocks)


@contextlib.contextmanager
def _opened(path: Path, name: str) -> Iterator[BinaryIO]:
    """A file of a checkpoint; what goes wrong with it is the checkpoint's fault."""
    try:
        with files.open_plain(path / name) as file:
            yield file
    except FileNotFoundError:
        raise _damaged(path, f"{name} is missing") from None
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror or error
        raise _damaged(path, f"{name} can't be read: {reason}") from error


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {path} is damaged: {what}; restore it from a copy, or take another one")


def read_whole(checkpoint: Checkpoint, *, on_bytes: OnBytes = lambda _: None) -> dict[str, bytes]:
    """As `read_checkpoint`, of one that a run can go on from. Raises CheckpointError."""
    contents = read_checkpoint(checkpoint.path, on_bytes=on_bytes)
    check_contents(contents, step=checkpoint.step, source=str(checkpoint.path))
    return contents


def newest_whole(
    directory: Path, *, passed_over: Callable[[Checkpoint, CheckpointError], None]
) -> tuple[Checkpoint, dict[str, bytes]] | None:
    """The newest checkpoint that verifies and holds what training writes, with its contents; None if there is none.

    passed_over: told of every newer one that doesn't verify, and why.
    """
    for checkpoint in reversed(list_checkpoints(directory)):
        try:
            return checkpoint, _read_patiently(checkpoint)
        except CheckpointError as error:
            passed_over(checkpoint, error)
    return None


def _read_patiently(checkpoint: Checkpoint) -> dict[str, bytes]:
    return patiently(lambda: read_whole(checkpoint), patience_s=READING_PATIENCE_S)


def read_metric(checkpoint: Checkpoint, metric: str) -> float | None:
    """A figure that a checkpoint was saved with; None if it wasn't known then, or the manifest is damaged."""
    try:
        return read_manifest(checkpoint.path).metrics.get(metric)
    except CheckpointError:
        return None


def best_checkpoint(directory: Path, metric: str) -> Checkpoint | None:
    """The checkpoint with the highest value of a metric, the newest of several; None if none has any."""
    scored = [(read_metric(checkpoint, metric), checkpoint) for checkpoint in list_checkpoints(directory)]
    known = [(score, checkpoint.step, checkpoint) for score, checkpoint in scored if score is not None]
    return max(known, key=lambda item: item[:2])[2] if known else None


def retain(directory: Path, *, keep_last: int, keep_best: int, metric: str, attempt: int) -> list[Checkpoint]:
    """Delete checkpoints beyond the last `keep_last` written and the `keep_best` highest by `metric`.

    For attempt `attempt`, right after it has written a checkpoint, which is kept whatever the numbers. The last are
    those of the newest attempts: an older attempt's later step is there because it didn't verify. Leftovers that were
    never committed go, too. What can't be deleted now is logged and left for the next time.

    Returns the deleted.
    """
    checkpoints = sorted(list_checkpoints(directory), key=lambda checkpoint: (checkpoint.attempt, checkpoint.step))
    scores = [(read_metric(checkpoint, metric), checkpoint.step, checkpoint) for checkpoint in checkpoints]
    scored = [(score, step, checkpoint) for score, step, checkpoint in scores if score is not None]
    best = [checkpoint for _, _, checkpoint in sorted(scored, key=lambda item: item[:2], reverse=True)[:keep_best]]
    kept = {checkpoint.path for checkpoint in [*checkpoints[-max(keep_last, 1) :], *best]}
    leftovers = [entry for entry in list_entries(directory) if entry.attempt <= attempt and not is_committed(entry)]
    for leftover in leftovers:
        _delete(leftover)
    return [checkpoint for checkpoint in checkpoints if checkpoint.path not in kept and _delete(checkpoint)]


def delete_checkpoint(path: Path) -> None:
    """Take the marker away first, so that a deletion cut short leaves no checkpoint rather than half of one.

    Raises StorageError.
    """
    with files.translated("delete the old checkpoint", path):
        if path.is_symlink():
            path.unlink()  # what it leads to is somebody else's
            return
        (path / COMMITTED).unlink(missing_ok=True)
        shutil.rmtree(path)


def _delete(checkpoint: Checkpoint) -> bool:
    try:
        delete_checkpoint(checkpoint.path)
    except StorageError as error:
        _log.warning("%s", error)
        return False
    return True
