"""The run directory: every path of a run on storage, and the numbering of its attempts.

    <storage>/<run>/
      recipe.yaml  plan.json  state.json  lease.json
      attempts/<n>/owner.json           who took number n: an exclusive create, so there is one
      attempts/<n>/began.json           when its turn came, if its driver had to wait for one
      attempts/<n>/progress.json        the newest figures, for whoever asks
      attempts/<n>/telemetry.json       the newest figures of every worker
      attempts/<n>/{metrics,events}-<k>.jsonl
      attempts/<n>/ending.json          how it ended, if its workers could say
      attempts/<n>/logs/                one file a rank, one for the driver
      checkpoints/step-<step>.<n>/
      evaluations/                      what `dnctl eval` came to on them
      compiled/                         kernels, for workers that start later
      requests/                         what commands ask of the run: to stop, to be submitted

Whatever an attempt writes carries its number in the path, so a late writer of an old attempt harms nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from time import time

from orchestrator.errors import NotFoundError, StorageError, UsageError
from orchestrator.run import files
from orchestrator.run.state import State, StateRecord, create_state, read_state


@dataclass(frozen=True, slots=True)
class AttemptDirectory:
    """What one attempt writes."""

    path: Path
    number: int

    @property
    def owner(self) -> Path:
        """Who holds the number."""
        return self.path / "owner.json"

    @property
    def began(self) -> Path:
        """When the wait of its driver was over; there is none if it hadn't to wait."""
        return self.path / "began.json"

    @property
    def progress(self) -> Path:
        """The newest figures."""
        return self.path / "progress.json"

    @property
    def telemetry(self) -> Path:
        """The newest figures of every worker."""
        return self.path / "telemetry.json"

    @property
    def ending(self) -> Path:
        """How it ended."""
        return self.path / "ending.json"

    @property
    def worker_nodes(self) -> Path:
        """The node of each of its workers."""
        return self.path / "nodes.json"

    @property
    def reservation(self) -> Path:
        """The name under which Ray has reserved room for its workers."""
        return self.path / "reservation.json"

    @property
    def pause_request(self) -> Path:
        """There if the attempt shall save a checkpoint and let its workers go, so that others can take over."""
        return self.path / "pause.json"

    @property
    def worker_failures(self) -> list[Path]:
        """A file for each time that its workers failed, oldest first."""
        return sorted(self.path.glob("worker-failure-*.json"))

    @property
    def logs(self) -> Path:
        """Logs, a file a process."""
        return self.path / "logs"

    def rank_log(self, rank: int) -> Path:
        """The log of one worker."""
        return self.logs / f"rank-{rank:05d}.log"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """All that is known of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def recipe(self) -> Path:
        """The recipe as launched, overrides applied."""
        return self.path / "recipe.yaml"

    @property
    def plan(self) -> Path:
        """The resolved plan."""
        return self.path / "plan.json"

    @property
    def state(self) -> Path:
        """The state record."""
        return self.path / "state.json"

    @property
    def lease(self) -> Path:
        """Who writes now, and until when."""
        return self.path / "lease.json"

    @property
    def evaluations(self) -> Path:
        """What checkpoints came to when somebody asked."""
        return self.path / "evaluations"

    @property
    def compiled(self) -> Path:
        """What was compiled for the run's workers."""
        return self.path / "compiled"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    @property
    def passed_over(self) -> Path:
        """The steps that the divergence guard made the run leave out."""
        return self.path / "passed_over.json"

    @property
    def stop_request(self) -> Path:
        """There while somebody wants the run to stop."""
        return self.path / "requests" / "stop.json"

    def create(self, *, now: float) -> None:
        """Make the directory of a new run, PENDING. Raises StorageError, or UsageError if there is such a run."""
        for directory in (self.path / "attempts", self.checkpoints, self.path / "requests"):
            files.make_directory(directory, parents=True)
        record = StateRecord(state=State.PENDING, reason="created", attempt=0, created_at=now, updated_at=now)
        if not create_state(self.state, record):
            raise UsageError(f"run {self.name} exists already in {self.path.parent}; give another --name")

    def num_submissions(self) -> int:
        """How often it was given to a cluster; take it before looking at the run, for `claim_submission`."""
        return len(list((self.path / "requests").glob("submission-*.json")))

    def claim_submission(self, seen: int) -> bool:
        """Take the next submission; False if somebody else has since there were `seen`."""
        path = self.path / "requests" / f"submission-{seen + 1:04d}.json"
        return files.create_exclusively(path, files.json_bytes({"asked_at": time()}))

    def exists(self) -> bool:
        """Whether there is a run here."""
        with files.translated("look for a run in", self.path):
            return self.state.is_file()

    def read_state(self) -> StateRecord:
        """The state record. Raises NotFoundError if there is no run here."""
        try:
            return read_state(self.state)
        except FileNotFoundError:
            raise NotFoundError(f"there is no run at {self.path}; `dnctl list` shows the runs there are") from None

    def attempt(self, number: int) -> AttemptDirectory:
        """The directory of one attempt."""
        return AttemptDirectory(self.path / "attempts" / str(number), number)

    def attempts(self) -> list[AttemptDirectory]:
        """All attempts that were claimed, oldest first."""
        with files.translated("list", self.path / "attempts"):
            numbers = [int(entry.name) for entry in (self.path / "attempts").iterdir() if entry.name.isdigit()]
            return [self.attempt(number) for number in sorted(numbers) if self.attempt(number).owner.is_file()]

    def newest_attempt(self) -> tuple[int, str]:
        """Number and holder of the newest attempt; (0, "") before the first. Raises StorageError."""
        attempts = self.attempts()
        if not attempts:
            files.require(self.state)  # not a run whose storage went away during the look
            return 0, ""
        newest = attempts[-1]
        try:
            return newest.number, str(files.read_json(newest.owner)["holder"])
        except (FileNotFoundError, KeyError) as error:
            raise StorageError(
                f"{newest.owner} names no holder ({error!r}); remove {newest.path} and resume"
            ) from error

    def claim_attempt(self, holder: str, *, submitted_at: float | None = None) -> AttemptDirectory:
        """Take the next attempt number, against all others who try at the same moment.

        submitted_at: when a person asked for it, in seconds since 1970; None if its driver was there already.
        """
        while True:
            attempt = self.attempt(self.newest_attempt()[0] + 1)
            files.make_directory(attempt.path)
            files.make_directory(attempt.logs)
            owner = {"holder": holder, "submitted_at": submitted_at, "claimed_at": time()}
            if files.create_exclusively(attempt.owner, files.json_bytes(owner)):
                return attempt
