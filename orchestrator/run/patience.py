"""A storage that is away for a while is waited for: a server that starts again, a full disk that is made room on.

What waiting doesn't mend, such as missing rights or a damaged file, is not waited for.
"""

import errno
import logging
from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

from orchestrator.errors import StorageError

_log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 600.0
PAUSE_S = 1.0
_LASTING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST}


def patiently(do: Callable[[], T], *, patience_s: float = PATIENCE_S, pause_s: float = PAUSE_S) -> T:
    """What `do` returns, which is tried again while the storage is away. Raises the last StorageError."""
    deadline, told = monotonic() + patience_s, False
    while True:
        try:
            return do()
        except StorageError as error:
            if not is_passing(error) or monotonic() >= deadline:
                raise
            if not told:
                _log.warning("%s; tried again for up to %.0f s", error, patience_s)
            told = True
            sleep(pause_s)


def is_passing(error: StorageError) -> bool:
    """Whether it came from a filesystem that may be well again in a while."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno not in _LASTING
