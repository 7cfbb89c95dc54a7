"""A history: one run and the faults that strike it, one after another; and what must be true of it in the end."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from shutil import copytree, ignore_patterns
from tempfile import mkdtemp
from time import sleep, time

import pytest

from orchestrator.run.directory import AttemptDirectory
from orchestrator.run.segments import read_segments
from orchestrator.run.state import State
from orchestrator.run.status import read_status
from tests.images import write_folder
from tests.multihost.conftest import Bed, made_bed
from tests.multihost.disk import Disk
from tests.multihost.faults import Fault, Mend
from tests.multihost.moments import Moment
from tests.multihost.record import Outcome
from tests.multihost.scene import HistoryError, Scene
from tests.training import SMALL, Trained, make_run, train_ranks

NUM_TRAIN, NUM_VAL, BATCH, EPOCHS, EVALUATED_EVERY = 600, 30, 12, 16, 2
STEPS_PER_EPOCH = NUM_TRAIN // BATCH
SETTINGS = (
    *(
        setting
        for setting in SMALL
        if not setting.startswith(("cluster.", "train.global", "train.epochs", "data.train"))
    ),
    "model.name=densenet7_4",
    "guard.spike=null",
    "train.optimizer.lr=0.01",
    "data.train.image_size=16",
    "data.eval.resize=16",
    "data.eval.crop=16",
    f"train.global_batch_size={BATCH}",
    f"train.epochs={EPOCHS}",
    "train.batch_norm_groups=3",
    "train.schedule.milestones=[0.5]",
    "model.drop_rate=0.2",
    f"eval.every_epochs={EVALUATED_EVERY}",
    "data.eval.crops=10",
)
"""A network of milliseconds, and an evaluation that takes ten of its steps."""
ON_HOSTS = (
    "checkpoint.every_minutes=0.01",
    "cluster.cpus_per_worker=1",
    "cluster.resize_minutes=0",
    "cluster.hang_minutes=0.33",
)
SETTLED_S = 1.5
LOST_FOR_S = 12.0
RECOVERY_TIMEOUT_S = 240.0
STRIKES_ON_THE_GO = 2
"""In one run, of faults that it doesn't stop for: more, and it would have ended before the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A fault at a moment."""

    fault: Fault
    moment: Moment

    def __str__(self) -> str:
        return f"{self.fault.name} {self.moment.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Floor:
    """What was saved when a strike fell: no attempt after that one may begin before that step."""

    attempt: int
    step: int


@dataclass(slots=True, kw_only=True)
class Stage:
    """Hosts, a disk and what the undisturbed run came to; histories are played on it one after another."""

    bed: Bed
    disk: Disk
    undisturbed: Trained
    num_played: int = 0
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(max_workers=1))
    mending: Future[None] | None = None

    def play(self, strikes: Sequence[Strike], *, seed: object, workers: str = "2") -> list[Outcome]:
        """Launch a run, strike it, see it through and hold it against the undisturbed one. Raises AssertionError."""
        self.num_played += 1
        self._mend_meanwhile(lambda: None)
        self.bed.hosts.workers(3)  # two that compute, and one in reserve
        settings = [setting for setting in (*SETTINGS, *ON_HOSTS) if not setting.startswith("train.epochs")]
        run = self.bed.launch(f"history-{self.num_played}", workers, epochs=EPOCHS, settings=settings)
        scene = Scene(bed=self.bed, disk=self.disk, run=run, random=Random(str(seed)))
        floors: list[_Floor] = []
        try:
            outcomes = [self._strike(scene, strike, floors) for strike in strikes]
            status = self.bed.wait(run)
            assert status["state"] == "SUCCEEDED", f"{status['state']}: {status['reason']}"
            self._compare(Trained(run), floors)
            wall_s = status["finished_at"] - status["created_at"]
            assert sum(status["ledger"].values()) == pytest.approx(wall_s, rel=0.01), status["ledger"]
        except Exception as error:
            self.disk.make_usable()
            if self.mending is not None:
                wait([self.mending])
                self.mending = None
            kept = Path(mkdtemp(prefix="failed-")) / run.name
            copytree(run.path, kept, ignore=ignore_patterns("ray"))
            self.bed.hosts.reboot_all()
            raise HistoryError(f"{error}\nthe run is kept in {kept}\n{scene.account()}") from error
        return outcomes

    def _strike(self, scene: Scene, strike: Strike, floors: list[_Floor]) -> Outcome:
        fault = strike.fault
        if scene.run.read_state().state.is_finished:
            raise HistoryError(f"the run has ended before {strike}: it needs more epochs")
        if fault.back_by == "resume":
            self._mend_meanwhile(lambda: None)  # all hosts there, before the head may go
        with strike.moment.of(scene):
            attempt, struck_at = scene.attempt().number, time()
            saved = [0, *(checkpoint.step for checkpoint in reversed(scene.newest_checkpoints()))]
            floors.append(_Floor(attempt=attempt, step=saved[-1 - fault.checkpoints_lost]))
            mend = fault.strike(scene)
        if mend is not None and fault.lasts_s is not None:
            sleep(fault.lasts_s)
            mend()
        back_by = self._see_back(scene, strike, attempt if fault.ends_attempt else None, since=time())
        back_after_s = round(time() - struck_at, 1)
        if mend is not None and fault.lasts_s is None:
            self._mend_meanwhile(mend)
        return Outcome(fault=fault.name, moment=strike.moment.name, back_by=back_by, back_after_s=back_after_s)

    def _mend_meanwhile(self, mend: Mend) -> None:
        """Starting a host takes longer than a run has steps to spare."""
        if self.mending is not None:
            self.mending.result()
        self.mending = self.threads.submit(mend)

    def _see_back(self, scene: Scene, strike: Strike, ended_attempt: int | None, *, since: float) -> str:
        """Wait until the run makes progress again, resuming it if it reads LOST or FAILED and stays so."""
        back_by, dead_since = "itself", None
        deadline = since + RECOVERY_TIMEOUT_S
        while time() < deadline:
            if self._is_back(scene, ended_attempt, since=since):
                return back_by
            state = read_status(scene.run, now=time()).state
            dead_since = (dead_since or time()) if state in {State.LOST, State.FAILED} else None
            if state is State.SUCCEEDED:
                return back_by
            if dead_since is not None and (state is State.FAILED or time() - dead_since > LOST_FOR_S):
                if back_by == "resume":
                    break
                back_by, dead_since = "resume", None
                answer = self.bed.dnctl("resume", scene.run.name, "--detach")
                if answer.returncode != 0:
                    raise HistoryError(f"after {strike}: resume: {answer.stderr}")
            sleep(0.1)
        raise HistoryError(f"no progress after {strike}")

    def _is_back(self, scene: Scene, ended_attempt: int | None, *, since: float) -> bool:
        progress = scene.progress()
        if progress is None or progress.at is None or progress.step <= progress.first_step:
            return False
        if ended_attempt is not None and scene.attempt().number > ended_attempt:
            return True
        return ended_attempt is None and progress.at > since + SETTLED_S

    def _compare(self, trained: Trained, floors: Sequence[_Floor]) -> None:
        """Order, counts, bits; and that each attempt began at the newest checkpoint there was."""
        assert trained.samples() == self.undisturbed.samples(), "the order of samples"
        evaluated = {event["step"]: event["num_images"] for event in trained.events("evaluated")}
        assert all(num_images == NUM_VAL for num_images in evaluated.values()), "each validation image once"
        ours, theirs = trained.tensors_sha256(), self.undisturbed.tensors_sha256()
        assert ours == theirs, "weights, statistics and momentum"
        assert trained.rows()[EPOCHS * STEPS_PER_EPOCH] is not None
        starts = {attempt.number: _step_of_start(attempt) for attempt in trained.run.attempts()}
        for floor in floors:
            later = [step for number, step in starts.items() if number > floor.attempt and step is not None]
            assert not later or later[0] >= floor.step, f"went on from {later[0]}, saved was {floor.step}"


def _step_of_start(attempt: AttemptDirectory) -> int | None:
    """The step that the workers of an attempt went on from; None if they didn't come so far."""
    for event in read_segments(attempt.path, "events"):
        if event["event"] in {"training_starts", "training_resumes"}:
            return int(event["step"])
    return None


def undisturbed_run(folder: Path) -> tuple[Path, Trained]:
    """The images, and the run left alone, without Ray on one worker."""
    images = write_folder(folder / "images", num_train=NUM_TRAIN, num_val=NUM_VAL, num_classes=3)
    alone = make_run(folder / "alone", images, workers=1, overrides=SETTINGS)
    return images, train_ranks(alone, workers=1)


@contextmanager
def made_stage(folder: Path) -> Iterator[Stage]:
    """A head and three hosts, a disk of their own, and what the undisturbed run came to."""
    images, undisturbed = undisturbed_run(folder)
    disk = Disk(folder)
    disk.mount()
    try:
        with made_bed(folder, images, storage=disk.storage, cpus=[0, 1, 1, 1]) as bed:
            try:
                yield Stage(bed=bed, disk=disk, undisturbed=undisturbed)
            finally:
                disk.make_usable()
    finally:
        disk.unmount()
