"""Byte ranges of files in a folder or in an object store, read from any number of threads.

What may pass by itself (a store that is busy or silent, a connection that breaks, a body that stops) is tried again,
waiting longer each time; what won't (no rights, no such object) is raised at once. Every error names the object.
"""

import logging
import os
import random
import re
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

import pyarrow.fs

from orchestrator.errors import DataError, UsageError

_log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_OPEN_FILES: Final = 256
CONNECT_TIMEOUT_S: Final = 10
REQUEST_TIMEOUT_S: Final = 20

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)")
_DENIED = re.compile(
    r"ACCESS_DENIED|ACCESS_KEY|SIGNATURE|TOKEN|PERMISSION_DENIED|UNAUTHENTICATED|HTTP status 40[13]|credential",
    re.IGNORECASE,
)
_MISSING = re.compile(r"NOT_FOUND|NO_SUCH|HTTP status 404")
_REFUSED = re.compile(r"HTTP status (400|301|307)|INVALID_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often and how patiently an object store is asked."""

    max_attempts: int = 7
    first_delay_s: float = 0.5
    """Before the second attempt; twice as long before each next one, times a random number in [0.5, 1.5)."""
    request_timeout_s: float = REQUEST_TIMEOUT_S
    """Silence after which an attempt has failed."""

    def delay_s(self, attempt: int) -> float:
        """How long to wait after attempt number `attempt`, counted from 1."""
        return self.first_delay_s * 2.0 ** (attempt - 1) * (0.5 + random.random())


class Storage(ABC):
    """A place where files lie. Names are relative to `location`; methods raise DataError and may be called at once."""

    location: str
    """As a person writes it, without a slash at its end."""
    num_readers: int
    """How many reads at a time make good use of it."""

    @abstractmethod
    def size(self, name: str) -> int:
        """The size of a file in bytes."""

    @abstractmethod
    def version(self, name: str) -> str:
        """Text that changes when the file is replaced."""

    @abstractmethod
    def read(self, name: str, offset: int, num_bytes: int) -> bytes:
        """A range of a file; shorter only where the file ends."""


def is_url(root: str | Path) -> bool:
    """Whether a data set's root is in an object store, and not a path."""
    return _URL.fullmatch(str(root)) is not None


def open_storage(root: str | Path, retries: Retries | None = None) -> Storage:
    """The storage at a path, or at an s3:// or gs:// address. Raises UsageError for other addresses."""
    match = _URL.fullmatch(str(root))
    if match is None:
        return LocalStorage(Path(root).absolute())
    retries = retries or Retries()
    scheme, rest = match.groups()
    if scheme not in _FILESYSTEMS:
        raise UsageError(
            f"{root}: data can't be read from {scheme}://; allowed: a path, s3://BUCKET/… or gs://BUCKET/…"
        )
    bucket = rest.partition("/")[0]
    return ObjectStorage(str(root), _FILESYSTEMS[scheme](bucket, retries), rest.rstrip("/"), retries)


class LocalStorage(Storage):
    """A folder, on a local disk or mounted."""

    def __init__(self, folder: Path) -> None:
        self.location = str(folder)
        self.num_readers = 4
        self._open: OrderedDict[str, OpenFile] = OrderedDict()
        self._lock = Lock()

    def size(self, name: str) -> int:
        """By asking the filesystem, or the store."""
        return self._translated(name, lambda: os.fstat(self._file(name).descriptor).st_size)

    def version(self, name: str) -> str:
        """Made of the time of its last change."""
        return self._translated(name, lambda: str(os.fstat(self._file(name).descriptor).st_mtime_ns))

    def read(self, name: str, offset: int, num_bytes: int) -> bytes:
        """A range of a file; shorter only where the file ends."""

        def read() -> bytes:
            file = self._file(name)
            data = os.pread(file.descriptor, num_bytes, offset)
            while 0 < len(data) < num_bytes and (
                more := os.pread(file.descriptor, num_bytes - len(data), offset + len(data))
            ):
                data += more
            return data

        return self._translated(name, read)

    def _file(self, name: str) -> "OpenFile":
        with self._lock:
            file = self._open.get(name)
            if file is None:
                file = self._open[name] = OpenFile(f"{self.location}/{name}")
                if len(self._open) > MAX_OPEN_FILES:
                    self._open.popitem(last=False)  # closed when the last thread that reads from it is done
            self._open.move_to_end(name)
            return file

    def _translated(self, name: str, work: Callable[[], T]) -> T:
        try:
            return work()
        except FileNotFoundError:
            raise DataError(f"{self.location}/{name} is missing; put it back, or make the shards again.") from None
        except OSError as error:
            raise DataError(f"{self.location}/{name} can't be read: {error.strerror}.") from error


class OpenFile:
    """A file descriptor that is closed when nobody holds it any more."""

    __slots__ = ("descriptor",)

    def __init__(self, path: str | Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class ObjectStorage(Storage):
    """A prefix in an object store, through pyarrow.

    Its Google client may close the handle of a small object whose connection broke; then it raises ValueError.
    """

    def __init__(self, location: str, filesystem: pyarrow.fs.FileSystem, prefix: str, retries: Retries) -> None:
        self.location = location.rstrip("/")
        self.num_readers = 32
        self._filesystem = filesystem
        self._prefix = prefix
        self._retries = retries
        self._open: dict[str, Any] = {}

    def size(self, name: str) -> int:
        """By asking the filesystem, or the store."""
        return int(self._persistently(name, lambda: self._object(name).size()))

    def version(self, name: str) -> str:
        """Made of the time of its last change."""
        info = self._persistently(name, lambda: self._filesystem.get_file_info(f"{self._prefix}/{name}"))
        return f"{info.size} {info.mtime_ns}"

    def read(self, name: str, offset: int, num_bytes: int) -> bytes:
        """A range of a file; shorter only where the file ends."""
        data: bytes = self._persistently(name, lambda: self._object(name).read_at(num_bytes, offset))
        return data

    def _object(self, name: str) -> Any:
        """A handle on an object, kept: opening one asks the store for its size."""
        found = self._open.get(name)
        if found is None:
            found = self._open[name] = self._filesystem.open_input_file(f"{self._prefix}/{name}")
        return found

    def _persistently(self, name: str, ask: Callable[[], T]) -> T:
        for attempt in range(1, self._retries.max_attempts + 1):
            try:
                return ask()
            except (OSError, ValueError) as error:
                self._open.pop(name, None)
                problem = _permanent_problem(error)
                if problem is not None:
                    raise DataError(f"{self.location}/{name} {problem}") from error
                if attempt == self._retries.max_attempts:
                    raise DataError(
                        f"{self.location}/{name} couldn't be read in {attempt} attempts; the last one: {error}. "
                        "Look at the store and the network, then resume the run."
                    ) from error
                delay_s = self._retries.delay_s(attempt)
                _log.warning("%s/%s: %s; tried again in %.1f s", self.location, name, error, delay_s)
                time.sleep(delay_s)
        raise AssertionError("the last attempt returns or raises")


def _permanent_problem(error: Exception) -> str | None:
    """What to say of an error that trying again won't mend; None for one that may pass."""
    text = str(error)
    if isinstance(error, FileNotFoundError) or _MISSING.search(text):
        return "doesn't exist in the store (404). Look at data.root, or upload it again."
    if isinstance(error, PermissionError) or _DENIED.search(text):
        return (
            "was refused by the store (403): credentials are missing, expired or without the right to read it. Set "
            "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS, on "
            "every node."
        )
    if _REFUSED.search(text):
        return f"was refused by the store: {text}. Look at the bucket's region (AWS_REGION) and the credentials."
    return None


def _s3(bucket: str, retries: Retries) -> pyarrow.fs.FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        try:
            region = pyarrow.fs.resolve_s3_region(bucket)
        except OSError as error:
            raise DataError(f"s3://{bucket} can't be found: {error}. Look at its name, or set AWS_REGION.") from error
    scheme, _, host = (endpoint or "").rpartition("://")
    return pyarrow.fs.S3FileSystem(
        region=region or "us-east-1",
        endpoint_override=host.rstrip("/") or None,
        scheme=scheme or "https",
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=retries.request_timeout_s,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=1),  # ObjectStorage tries again by itself
    )


def _gcs(_: str, retries: Retries) -> pyarrow.fs.FileSystem:
    from datetime import timedelta

    patience = timedelta(seconds=retries.request_timeout_s)
    scheme, _, host = os.environ.get("STORAGE_EMULATOR_HOST", "").rpartition("://")  # as Google's libraries have it
    if host:
        return pyarrow.fs.GcsFileSystem(
            anonymous=True, scheme=scheme or "http", endpoint_override=host.rstrip("/"), retry_time_limit=patience
        )
    return pyarrow.fs.GcsFileSystem(retry_time_limit=patience)


_FILESYSTEMS: dict[str, Callable[[str, Retries], pyarrow.fs.FileSystem]] = {"s3": _s3, "gs": _gcs}
