"""Checkpoints on storage: either whole or absent. What is in their files is train/checkpoint.py's business.

A checkpoint is a directory `step-<step>.<attempt>` of files, a MANIFEST.json with the size and SHA-256 of each, and a
COMMITTED marker, written last, with the SHA-256 of the manifest. Without a marker that fits there is no checkpoint.
Reading verifies every byte and hands out the bytes that were verified.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import CheckpointError
from orchestrator.run import files

MANIFEST = "MANIFEST.json"
COMMITTED = "COMMITTED"
_NAME = re.compile(r"step-(\d{8,})\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A committed checkpoint; whether it is intact shows when it is read."""

    path: Path
    step: int
    attempt: int


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
    if not directory.is_dir():
        return []
    found = []
    with files.translated("list", directory):
        for entry in directory.iterdir():
            match = _NAME.fullmatch(entry.name)
            if match and (entry / COMMITTED).is_file():
                found.append(Checkpoint(path=entry, step=int(match[1]), attempt=int(match[2])))
    return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.attempt))


def read_checkpoint(path: Path) -> dict[str, bytes]:
    """The verified contents of a checkpoint's files by name. Raises CheckpointError that names what is wrong."""
    manifest = _read_manifest(path)
    contents = {}
    for name, expected in manifest["files"].items():
        if name != Path(name).name:
            raise CheckpointError(f"checkpoint {path}: its manifest names a file outside of it, {name!r}: not trusted")
        contents[name] = _read_bytes(path, name)
        if len(contents[name]) != expected["bytes"]:
            raise CheckpointError(
                f"checkpoint {path}: {name} has {len(contents[name])} bytes instead of {expected['bytes']}; "
                "it is cut short or was changed"
            )
        if hashlib.sha256(contents[name]).hexdigest() != expected["sha256"]:
            raise CheckpointError(f"checkpoint {path}: {name} doesn't have the SHA-256 it was written with")
    return contents


def _read_manifest(path: Path) -> dict[str, Any]:
    marker = _read_bytes(path, COMMITTED)
    content = _read_bytes(path, MANIFEST)
    if hashlib.sha256(content).hexdigest().encode() != marker.strip():
        raise CheckpointError(f"checkpoint {path}: {MANIFEST} is not the one that was committed")
    manifest: dict[str, Any] = json.loads(content)
    if manifest["format_version"] != 1:
        raise CheckpointError(
            f"checkpoint {path}: format version {manifest['format_version']}, this dnctl reads 1: "
            "use the dnctl that wrote it"
        )
    return manifest


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path}: {name} is missing") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: cannot read {name}: {error.strerror}") from error


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
        value: float | None = _read_manifest(checkpoint.path)["metrics"].get(metric)
    except CheckpointError:
        return None
    return value


def retain(directory: Path, *, keep_last: int, keep_best: int, metric: str, attempt: int) -> list[Checkpoint]:
    """Delete checkpoints beyond the last `keep_last` and the `keep_best` highest by `metric`; returns the deleted.

    The newest one is kept whatever the numbers. Leftovers of older attempts that were never committed go, too.
    """
    checkpoints = list_checkpoints(directory)
    scores = [(read_metric(checkpoint, metric), checkpoint.step, checkpoint) for checkpoint in checkpoints]
    scored = [(score, step, checkpoint) for score, step, checkpoint in scores if score is not None]
    best = [checkpoint for _, _, checkpoint in sorted(scored, key=lambda item: item[:2], reverse=True)[:keep_best]]
    kept = {checkpoint.path for checkpoint in [*checkpoints[-max(keep_last, 1) :], *best]}
    deleted = [checkpoint for checkpoint in checkpoints if checkpoint.path not in kept]
    for checkpoint in deleted:
        _delete(checkpoint.path)
    for entry in directory.iterdir():
        match = _NAME.fullmatch(entry.name)
        if match and int(match[2]) < attempt and not (entry / COMMITTED).exists():
            _delete(entry)
    return deleted


def _delete(path: Path) -> None:
    """Take the marker away first, so that a deletion cut short leaves no checkpoint rather than half of one."""
    with files.translated("delete the old checkpoint", path):
        (path / COMMITTED).unlink(missing_ok=True)
        shutil.rmtree(path)
