"""Where loaders get the bytes of an image from: a file of its own, or its place in a shard."""

import zlib
from abc import ABC, abstractmethod

from orchestrator.data.image import BadImageError, read_encoded
from orchestrator.data.manifest import Manifest, ShardIndex
from orchestrator.data.staging import ShardCache, Stager
from orchestrator.data.storage import LocalStorage, Retries, Storage, open_storage
from orchestrator.errors import DataError


class Source(ABC):
    """Reads the images of a manifest, from any number of threads."""

    num_readers: int
    """How many reads at a time make good use of it."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The bytes of an image as they were when the manifest was made. Raises DataError, naming it."""

    @abstractmethod
    def close(self) -> None:
        """End what goes on in the background. May be called twice."""


def open_source(manifest: Manifest, *, cache: ShardCache | None = None, retries: Retries | None = None) -> Source:
    """The source of a manifest's images. cache: where shards are copied to, if they are to be."""
    if manifest.shards is None:
        return FolderSource(manifest)
    return ShardSource(manifest, manifest.shards, open_storage(manifest.root, retries), cache)


def unreadable(path: str, error: BadImageError) -> DataError:
    """The error for an image that turned out to be damaged, or changed, during a run."""
    return DataError(f"{path} {error}. Repair or replace it, then look at the whole data set: dnctl data index ROOT")


class FolderSource(Source):
    """Files in ImageNet layout."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.num_readers = 4

    def read(self, index: int) -> bytes:
        """The bytes of a file."""
        path = self._manifest.path(index)
        try:
            return read_encoded(path, self._manifest.header(index))
        except BadImageError as error:
            raise unreadable(path, error) from error

    def close(self) -> None:
        """Nothing goes on in the background."""


class ShardSource(Source):
    """Places in shards, whose bytes are compared with the index's checksums."""

    def __init__(self, manifest: Manifest, index: ShardIndex, storage: Storage, cache: ShardCache | None) -> None:
        self._manifest = manifest
        self._index = index
        self._storage = storage
        self._checked: set[int] = set()
        self._stager = None if cache is None else Stager(index, storage, cache)
        self._copies = None if cache is None else LocalStorage(cache.folder)
        self.num_readers = storage.num_readers

    def read(self, index: int) -> bytes:
        """The bytes of an image, from the copy of its shard if there is one."""
        shard = int(self._index.shard[index])
        data = self._from_copy(shard, index)
        if data is not None:
            return data
        self._check_size(shard)
        data = self._storage.read(self._index.names[shard], *self._range(index))
        if not self._is_whole(index, data):
            raise DataError(
                f"{self._manifest.path(index)} isn't what the index says: the shard was changed, or the index belongs "
                "to other shards. Fetch both again, or make them again: dnctl data shard."
            )
        return data

    def close(self) -> None:
        """Stop copying shards."""
        if self._stager is not None:
            self._stager.close()

    def _from_copy(self, shard: int, index: int) -> bytes | None:
        """The image as the shard's copy on this disk has it; None without a good one."""
        name = self._stager.name(shard) if self._stager is not None else None
        if self._stager is None or self._copies is None or name is None:
            return None
        try:
            data = self._copies.read(name, *self._range(index))
        except DataError:
            data = b""
        if self._is_whole(index, data):
            return data
        self._stager.discard(shard)
        return None

    def _range(self, index: int) -> tuple[int, int]:
        return int(self._index.offset[index]), int(self._manifest.num_bytes[index])

    def _is_whole(self, index: int, data: bytes) -> bool:
        return len(data) == int(self._manifest.num_bytes[index]) and zlib.crc32(data) == int(self._index.crc32[index])

    def _check_size(self, shard: int) -> None:
        if shard in self._checked:
            return
        name, expected = self._index.names[shard], self._index.sizes[shard]
        found = self._storage.size(name)
        if found != expected:
            raise DataError(
                f"{self._storage.location}/{name} has {found} bytes and the index says {expected}: it was cut short, "
                "or the index belongs to other shards. Fetch both again, or make them again: dnctl data shard."
            )
        self._checked.add(shard)
