"""Finds and opens data sets in shards, which are known by their indexes: ROOT/SPLIT.index.arrow.

ROOT is a folder or the address of one in an object store; the index of the latter is kept in the user's cache, by
address and version, so that the ranks of a machine map the same file.
"""

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from orchestrator.data.manifest import Manifest, open_manifest
from orchestrator.data.storage import Storage, is_url, open_storage
from orchestrator.errors import DataError

_CHUNK_BYTES = 64 << 20


def index_name(split: str) -> str:
    """What the index of a split is called."""
    return f"{split}.index.arrow"


def is_shard_set(root: str | Path) -> bool:
    """Whether ROOT holds shards: object stores always do, a folder does if it has an index."""
    return is_url(root) or any(Path(root).glob("*.index.arrow"))


def open_shard_set(root: str | Path, splits: Sequence[str], *, cache_dir: Path) -> dict[str, Manifest]:
    """The manifests of splits. Raises DataError if one is missing or damaged."""
    if not is_url(root):
        root = Path(root).absolute()
        return {split: _opened(root, root / index_name(split), split) for split in splits}
    storage = open_storage(root)
    return {split: _opened(storage.location, _fetched(storage, split, cache_dir), split) for split in splits}


def _opened(root: Path | str, path: Path, split: str) -> Manifest:
    try:
        manifest = open_manifest(path, root=root)
    except OSError as error:
        raise DataError(
            f"{root}/{index_name(split)} can't be read: {error.strerror or error}. Copy the shard set again, or make "
            "it again: dnctl data shard."
        ) from error
    if manifest.shards is None or manifest.split != split:
        raise DataError(f"{root}/{index_name(split)} is no index of shards of {split}; copy the shard set again.")
    return manifest


def _fetched(storage: Storage, split: str, cache_dir: Path) -> Path:
    """The index as a file on this machine."""
    name = index_name(split)
    key = hashlib.sha256(f"{storage.location}/{name} {storage.version(name)}".encode()).hexdigest()[:32]
    path = cache_dir / "indexes" / f"{key}.arrow"
    if path.exists():
        return path
    size = storage.size(name)
    aside = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as file:
            for start in range(0, size, _CHUNK_BYTES):
                file.write(storage.read(name, start, min(_CHUNK_BYTES, size - start)))
        aside.replace(path)
    except OSError as error:
        raise DataError(f"The index of {storage.location} can't be kept in {path.parent}: {error.strerror}.") from error
    finally:
        aside.unlink(missing_ok=True)
    return path
