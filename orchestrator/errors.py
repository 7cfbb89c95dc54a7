"""Every error that dnctl raises on purpose; each class knows the exit code it ends a command with.

    DnctlError                 1  the run failed, or something else went wrong
    ├── UsageError             2  what was asked for can't be done as asked
    │   ├── RecipeError        2  a recipe or an override is invalid
    │   ├── ProfileError       2  a cluster profile is invalid
    │   ├── PlanError          2  recipe and cluster don't fit together
    │   └── DataError          2  a data set is missing, damaged or not what the run recorded
    ├── NotFoundError          3  no such run, checkpoint or cluster
    ├── ClusterError           4  the cluster can't be reached
    │   ├── RefusedError       4  the cluster doesn't take this caller's token
    │   ├── MetadataError      4  a cloud's metadata server doesn't answer as it should
    │   └── RunLostError       4  the run's writer is gone
    ├── DivergedError          5  the loss stopped being finite
    ├── RunStoppedError        6  the run was stopped on request
    ├── StorageError           7  the run directory can't be read or written
    │   ├── CheckpointError    7  a checkpoint doesn't verify or doesn't fit
    │   └── TakenOverError     7  a newer attempt writes the run now
    └── TimedOutError        124  a limit set by the caller has passed

An error carries one message that says what, where and what to do. Errors cross process boundaries, so each is
rebuilt from that message alone.
"""


class DnctlError(Exception):
    """Base of all deliberate errors. `str(error)` is the whole message, ready for a person."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)


class UsageError(DnctlError):
    """What was asked for can't be done as asked."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe or an override is invalid; the message lists every fault found."""


class ProfileError(UsageError):
    """A cluster profile is invalid; the message lists every fault found."""


class PlanError(UsageError):
    """Recipe and cluster don't fit together."""


class DataError(UsageError):
    """A data set is missing, damaged or not the one that the run recorded."""


class NotFoundError(DnctlError):
    """No such run, checkpoint, model or cluster."""

    exit_code = 3


class ClusterError(DnctlError):
    """The cluster can't be reached, or can't do what was asked."""

    exit_code = 4


class RefusedError(ClusterError):
    """The cluster is there, but doesn't take this caller's token."""


class MetadataError(ClusterError):
    """A cloud's metadata server doesn't answer, or not as it should."""


class RunLostError(ClusterError):
    """The run's writer is gone without having said how the run ended."""


class DivergedError(DnctlError):
    """The loss or a gradient stopped being finite."""

    exit_code = 5


class RunStoppedError(DnctlError):
    """The run was stopped on request."""

    exit_code = 6


class StorageError(DnctlError):
    """The run directory can't be read or written."""

    exit_code = 7


class CheckpointError(StorageError):
    """A checkpoint doesn't verify, or belongs to another model or plan."""


class TakenOverError(StorageError):
    """A newer attempt has taken the run over; the older one must not write."""


class TimedOutError(DnctlError):
    """A limit set by the caller has passed."""

    exit_code = 124
