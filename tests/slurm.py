"""A Slurm of the test's own: munge, controller and two nodes on one machine, in a folder and on ports of its own."""

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol")


def missing() -> str | None:
    """Why there can be no Slurm here; None if there can."""
    if os.geteuid() != 0:
        return "needs root for Slurm's daemons"
    absent = [name for name in NEEDED if _path(name) is None]
    return f"needs Slurm: apt-get install slurm-wlm munge ({', '.join(absent)} missing)" if absent else None


def _path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextmanager
def slurm(folder: Path, *, num_nodes: int = 2) -> Iterator[dict[str, str]]:
    """Slurm for the time of the block; yields the environment in which its commands find it."""
    for name in ("state", *(f"spool-n{number}" for number in range(1, num_nodes + 1))):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    configuration = folder / "slurm.conf"
    configuration.write_text(_configuration(folder, num_nodes))
    environment = {"SLURM_CONF": str(configuration)}
    munge = ["--foreground", "--force", "--key-file", str(key), "--socket", str(folder / "munge.socket")]
    munge += ["--pid-file", str(folder / "munge.pid"), "--log-file", str(folder / "munge.log")]
    munge += ["--seed-file", str(folder / "munge.seed"), "--num-threads", "1"]
    with ExitStack() as stack:
        stack.enter_context(_daemon("munged", munge, environment, folder))
        _wait_for((folder / "munge.socket").exists)
        stack.enter_context(_daemon("slurmctld", ["-D"], environment, folder))
        for number in range(1, num_nodes + 1):
            stack.enter_context(_daemon("slurmd", ["-D", "-N", f"n{number}"], environment, folder))
        _wait_for(lambda: _num_idle(environment) == num_nodes)
        yield environment


@contextmanager
def _daemon(name: str, arguments: Sequence[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    path = _path(name)
    assert path is not None
    with (folder / f"{name}.out").open("ab") as log:
        process = subprocess.Popen(
            [path, *arguments], env={**os.environ, **environment}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _num_idle(environment: dict[str, str]) -> int:
    command = ["sinfo", "--noheader", "--Node", "--format=%T"]
    answer = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return answer.stdout.split().count("idle")


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 30
    while not condition():
        assert monotonic() < deadline, "Slurm didn't come up"
        sleep(0.2)


def _configuration(folder: Path, num_nodes: int) -> str:
    host = socket.gethostname().partition(".")[0]
    controller, *nodes = _free_ports(num_nodes + 1)
    lines = [
        "ClusterName=tests",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={controller}",
        "SlurmUser=root",
        f"AuthInfo=socket={folder}/munge.socket",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        f"SlurmctldLogFile={folder}/slurmctld.log",
        f"SlurmdLogFile={folder}/slurmd-%n.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "MpiDefault=none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "SlurmdParameters=config_overrides",
        "ReturnToService=2",
        "KillWait=5",
        "SchedulerParameters=batch_sched_delay=1,sched_interval=5",
        *(
            f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=1000"
            for number, port in enumerate(nodes, start=1)
        ),
        f"PartitionName=all Nodes=n[1-{num_nodes}] Default=YES MaxTime=60",
    ]
    return "\n".join(lines) + "\n"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for open_socket in sockets:
            open_socket.bind(("127.0.0.1", 0))
        return [open_socket.getsockname()[1] for open_socket in sockets]
