"""What was said in our own words when work on Ray failed; told without importing Ray."""

from orchestrator.errors import DnctlError


def own_error(error: Exception) -> DnctlError | None:
    """The error itself, or what a worker of a failed Ray Train run raised; None if neither is one of ours."""
    failures = getattr(error, "worker_failures", {})
    causes = [error, *(getattr(failure, "_base_exc", failure) for failure in failures.values())]
    return next((cause for cause in causes if isinstance(cause, DnctlError)), None)
