"""What a cluster says of a run's job, whatever keeps its queue."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """How a job is."""

    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    message: str

    @property
    def is_over(self) -> bool:
        """Whether the job won't do anything more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")
