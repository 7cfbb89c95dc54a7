"""What can happen to a run, as data: how it strikes, how it is mended, and what brings the run back."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.multihost.hosts import Host
from tests.multihost.scene import Scene, send

Mend = Callable[[], None]

DRAIN_DEADLINE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault."""

    name: str
    strike: Callable[[Scene], Mend | None]
    """Lets it happen; returns how the bed is mended, if it needs mending."""
    lasts_s: float | None = None
    """When it is mended: so long after; None: once the run goes on without."""
    ends_attempt: bool = True
    """Whether the workers are lost by it. If not, they go on by themselves once it is over."""
    back_by: Literal["itself", "resume"] = "itself"
    """What brings the run back: nobody, or `dnctl resume`."""
    checkpoints_lost: int = 0
    """How many of the newest checkpoints it spoils."""
    never: Sequence[str] = ()
    """Moments at which it can't strike."""
    only: str | None = None
    """The only moment at which it strikes, alone: the run has hardly a step left after it."""


def _kill_worker(scene: Scene) -> None:
    send(scene.process_of(scene.rank()), signal.SIGKILL)


def _kill_host(scene: Scene) -> Mend:
    host = scene.host_of(scene.rank())
    scene.bed.hosts.kill(host)
    return lambda: scene.bed.hosts.reboot(host)


def _cut(how: Callable[[Scene, Host], None]) -> Callable[[Scene], Mend]:
    """The network of a worker's host is cut for good: the host is started anew once the run goes on without it."""

    def strike(scene: Scene) -> Mend:
        host = scene.host_of(scene.rank())
        how(scene, host)
        return lambda: scene.bed.hosts.reboot(host)

    return strike


def _cut_for_a_while(how: Callable[[Scene, Host], None]) -> Callable[[Scene], Mend]:
    def strike(scene: Scene) -> Mend:
        host = scene.host_of(scene.rank())
        how(scene, host)
        return lambda: scene.bed.hosts.plug(host)

    return strike


def _unplug(scene: Scene, host: Host) -> None:
    scene.bed.hosts.unplug(host)


def _mute(scene: Scene, host: Host) -> None:
    scene.bed.hosts.mute(host)


def _deafen(scene: Scene, host: Host) -> None:
    scene.bed.hosts.deafen(host)


def _lose_head(scene: Scene) -> Mend:
    scene.bed.hosts.kill(scene.bed.hosts.head)
    return scene.bed.hosts.reboot_all


def _kill_driver(scene: Scene) -> None:
    send(scene.process_on_head(rf"^\S*python\S* -m orchestrator\.engine\.driver \S*{scene.run.name}$"), signal.SIGKILL)


def _kill_controller(scene: Scene) -> None:
    send(scene.process_on_head(r"^ray::TrainController"), signal.SIGKILL)


def _drain(scene: Scene) -> Mend:
    host = scene.host_of(scene.rank())
    scene.bed.hosts.drain(host, deadline_s=DRAIN_DEADLINE_S)
    return lambda: scene.bed.hosts.reboot(host)


def _hang_worker(scene: Scene) -> Mend:
    return scene.standstill.hang(scene.process_of(scene.rank()))  # an old worker that comes back must harm nothing


def _freeze_storage(scene: Scene) -> Mend:
    scene.disk.freeze()
    return scene.disk.thaw


def _take_storage_away(scene: Scene) -> Mend:
    scene.disk.take_away()
    return scene.disk.bring_back


def _fill_storage(scene: Scene) -> Mend:
    scene.disk.fill()
    return scene.disk.empty


def _damage_checkpoint(scene: Scene) -> None:
    """Flip a bit of the newest checkpoint and take a worker, so that it is read."""
    newest = scene.until(lambda: scene.newest_checkpoints()[:-1], "two checkpoints")[0]
    path = newest.path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    scene.spoiled.add(newest.path)
    _kill_worker(scene)


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(name="a worker is killed", strike=_kill_worker),
        Fault(name="a host dies", strike=_kill_host),
        Fault(name="a host's network is cut", strike=_cut(_unplug)),
        Fault(name="a host is heard by nobody", strike=_cut(_mute)),
        Fault(name="a host hears nobody", strike=_cut(_deafen)),
        Fault(name="a host's network is cut for 2 s", strike=_cut_for_a_while(_unplug), lasts_s=2, ends_attempt=False),
        Fault(name="a host is heard by nobody for 2 s", strike=_cut_for_a_while(_mute), lasts_s=2, ends_attempt=False),
        Fault(name="preemption is announced", strike=_drain),
        Fault(name="a worker hangs", strike=_hang_worker),
        Fault(name="a worker stands still for 2 s", strike=_hang_worker, lasts_s=2, ends_attempt=False),
        Fault(
            name="the newest checkpoint is damaged",
            strike=_damage_checkpoint,
            checkpoints_lost=1,
            never=["at the first step"],
        ),
        Fault(name="the storage hangs for 15 s", strike=_freeze_storage, lasts_s=15, ends_attempt=False),
        Fault(name="the storage is gone for 15 s", strike=_take_storage_away, lasts_s=15, ends_attempt=False),
        Fault(name="the storage is full for 15 s", strike=_fill_storage, lasts_s=15, ends_attempt=False),
        *(
            Fault(
                name=f"the storage {how} for a minute",
                strike=strike,
                lasts_s=60,
                ends_attempt=False,
                only="in the middle of an epoch",
            )
            for how, strike in (("hangs", _freeze_storage), ("is gone", _take_storage_away), ("is full", _fill_storage))
        ),
        Fault(name="the driver is killed", strike=_kill_driver, back_by="resume"),
        Fault(name="Ray's controller is killed", strike=_kill_controller),
        Fault(name="the head is lost", strike=_lose_head, lasts_s=0, back_by="resume"),
    )
}
