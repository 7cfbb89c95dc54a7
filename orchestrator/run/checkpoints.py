"""Checkpoints on storage: either whole or absent. What is in their files is train/checkpoint.py's business.

A checkpoint is a directory `step-<step>.<attempt>` of files, a MANIFEST.json with the size and SHA-256 of each, and a
COMMITTED marker, written last, with the SHA-256 of the manifest. Without a marker that fits there is no checkpoint.
Reading verifies every byte and hands out the bytes that were verified.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import CheckpointError, StorageError
from orchestrator.run import files

_log = logging.getLogger(__name__)

MANIFEST = "MANIFEST.json"
COMMITTED = "COMMITTED"
_NAME = re.compile(r"step-(\d{8,})\.(\d+)")
_FILE_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A committed checkpoint; whether it is intact shows when it is read."""

    path: Path
    step: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
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
            path.mkdir(parents=True)
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
    committed = [checkpoint for checkpoint in _entries(directory) if _is_committed(checkpoint)]
    return sorted(committed, key=lambda checkpoint: (checkpoint.step, checkpoint.attempt))


def newest_step(directory: Path) -> int:
    """Of the newest committed checkpoint, verified or not; -1 if there is none."""
    return max((checkpoint.step for checkpoint in list_checkpoints(directory)), default=-1)


def is_checkpoint_path(path: Path) -> bool:
    """Whether a path is a directory that is called as checkpoints are, whole or not."""
    return _NAME.fullmatch(path.name) is not None and path.is_dir()


def _entries(directory: Path) -> list[Checkpoint]:
    """All that is called as checkpoints are, committed or not."""
    with files.translated("list the checkpoints in", directory):
        if not directory.is_dir():
            return []
        matches = [(entry, _NAME.fullmatch(entry.name)) for entry in directory.iterdir()]
    return [Checkpoint(path=entry, step=int(match[1]), attempt=int(match[2])) for entry, match in matches if match]


def _is_committed(checkpoint: Checkpoint) -> bool:
    return (checkpoint.path / COMMITTED).is_file()


def read_checkpoint(path: Path) -> dict[str, bytes]:
    """The verified contents of a checkpoint's files by name. Raises CheckpointError that names what is wrong."""
    contents = {}
    for name, (num_bytes, sha256) in _read_manifest(path).files.items():
        contents[name] = content = _read_bytes(path, name)
        if len(content) != num_bytes:
            raise _damaged(path, f"{name} has {len(content)} bytes instead of {num_bytes}")
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _damaged(path, f"{name} doesn't have the SHA-256 that it was written with")
    return contents


def _read_manifest(path: Path) -> _Manifest:
    """The manifest that was committed. It names files of this directory alone, whoever wrote it."""
    content = _read_bytes(path, MANIFEST)
    if hashlib.sha256(content).hexdigest().encode() != _read_bytes(path, COMMITTED).strip():
        raise _damaged(path, f"{MANIFEST} and {COMMITTED} don't fit together")
    return _parse_manifest(path, content)


def _parse_manifest(path: Path, content: bytes) -> _Manifest:
    try:
        document = json.loads(content)
        if document["format_version"] != 1:
            raise CheckpointError(
                f"checkpoint {path}: format version {document['format_version']}, this dnctl reads 1: use the dnctl "
                "that wrote it"
            )
        described = {name: (file["bytes"], file["sha256"]) for name, file in document["files"].items()}
        metrics = dict(document["metrics"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, f"{MANIFEST} isn't one that dnctl writes ({error!r})") from error
    for name in described:
        if not _FILE_NAME.fullmatch(name):
            raise _damaged(path, f"{MANIFEST} names {name!r}, which is no file of a checkpoint, and isn't trusted")
    return _Manifest(files=described, metrics=metrics)


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except FileNotFoundError:
        raise _damaged(path, f"{name} is missing") from None
    except OSError as error:
        raise _damaged(path, f"{name} can't be read: {error.strerror}") from error


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {path} is damaged: {what}; restore it from a copy, or take another one")


def newest_whole(
    directory: Path, *, passed_over: Callable[[Checkpoint, CheckpointError], None]
) -> tuple[Checkpoint, dict[str, bytes]] | None:
    """The newest checkpoint that verifies, with its contents; None if there is none.

    passed_over: told of every newer one that doesn't verify, and why.
    """
    for checkpoint in reversed(list_checkpoints(directory)):
        try:
            return checkpoint, read_checkpoint(checkpoint.path)
        except CheckpointError as error:
            passed_over(checkpoint, error)
    return None


def read_metric(checkpoint: Checkpoint, metric: str) -> float | None:
    """A figure that a checkpoint was saved with; None if it wasn't known then, or the manifest is damaged."""
    try:
        return _read_manifest(checkpoint.path).metrics.get(metric)
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
    leftovers = [entry for entry in _entries(directory) if entry.attempt <= attempt and not _is_committed(entry)]
    for leftover in leftovers:
        _delete(leftover)
    return [checkpoint for checkpoint in checkpoints if checkpoint.path not in kept and _delete(checkpoint)]


def _delete(checkpoint: Checkpoint) -> bool:
    """Take the marker away first, so that a deletion cut short leaves no checkpoint rather than half of one."""
    try:
        with files.translated("delete the old checkpoint", checkpoint.path):
            (checkpoint.path / COMMITTED).unlink(missing_ok=True)
            shutil.rmtree(checkpoint.path)
    except StorageError as error:
        _log.warning("%s", error)
        return False
    return True
