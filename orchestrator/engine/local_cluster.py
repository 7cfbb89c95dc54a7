"""The Ray cluster of this machine: on loopback, behind a token, ending by itself when it has nothing left to do.

`start` launches a keeper process (engine/local_head.py), which holds Ray's head as its child and outlives the terminal.
What is known of it lies in one directory of this user: record.json once it is up, the token, logs.
"""

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep

from orchestrator.errors import ClusterError, StorageError
from orchestrator.run import files

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
DEFAULT_IDLE_MINUTES = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCluster:
    """A local cluster that is up."""

    dashboard_url: str
    gcs_address: str
    token_path: Path
    keeper_process_id: int
    idle_minutes: float
    """It ends by itself this long after its last run."""


def directory() -> Path:
    """Where this user's local cluster keeps its files: DNCTL_CLUSTER_DIR, or one in /tmp.

    The path must be short, since Ray puts Unix sockets below it, whose paths may have 107 bytes.
    """
    path = Path(os.environ.get("DNCTL_CLUSTER_DIR") or f"/tmp/dnctl-{os.getuid()}")  # noqa: S108 — mode and owner checked
    with files.translated("make the directory", path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ClusterError(f"{path} is open to other users; remove it, or set DNCTL_CLUSTER_DIR to another directory")
    return path


def record_path() -> Path:
    """What a running cluster says of itself."""
    return directory() / "record.json"


def write_record(cluster: LocalCluster) -> None:
    """Say that the cluster is up."""
    files.write_json(record_path(), {**asdict(cluster), "token_path": str(cluster.token_path)})


def token_environment(token_path: Path) -> dict[str, str]:
    """The environment in which Ray demands and presents the token."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_path)}


def find() -> LocalCluster | None:
    """The local cluster if it is up. A stale record, of a keeper that is gone, counts for nothing."""
    try:
        document = files.read_json(record_path())
        cluster = LocalCluster(**{**document, "token_path": Path(document["token_path"])})
    except (FileNotFoundError, StorageError, KeyError, TypeError):
        return None
    return cluster if _is_keeper(cluster.keeper_process_id) else None


def _is_keeper(process_id: int) -> bool:
    """Whether that process is there and is a keeper, not another that was given its number."""
    try:
        return b"orchestrator.engine.local_head" in Path(f"/proc/{process_id}/cmdline").read_bytes()
    except FileNotFoundError:
        pass
    except OSError:
        return False
    if Path("/proc/self/cmdline").exists():
        return False
    try:  # no /proc on this system: make do with the number
        os.kill(process_id, 0)
    except OSError:
        return False
    return True


def find_or_start() -> LocalCluster:
    """The local cluster, started if need be; of two that ask at once, the second gets what the first started."""
    with (directory() / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return find() or start()


def start() -> LocalCluster:
    """Start a local cluster and wait until it takes jobs. Raises ClusterError with the end of its log."""
    place = directory()
    end_remains()
    record_path().unlink(missing_ok=True)
    token_path = place / "token"
    token_path.touch(mode=0o600)
    token_path.write_text(secrets.token_hex(32))
    log_path = place / "keeper.log"
    with log_path.open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.engine.local_head", str(token_path), str(idle_minutes())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = monotonic() + START_TIMEOUT_S
    while monotonic() < deadline:
        cluster = find()
        if cluster is not None:
            return cluster
        if keeper.poll() is not None:
            break
        sleep(0.1)
    if keeper.poll() is None:
        keeper.terminate()
        keeper.wait(STOP_TIMEOUT_S)
    last_lines = "\n".join(log_path.read_text(errors="replace").splitlines()[-8:])
    raise ClusterError(f"Ray didn't start on this machine; the end of {log_path}:\n{last_lines}")


def end_remains() -> None:
    """End what a keeper left that was killed: processes of its session, its folder. Does nothing where all is well."""
    for folder in directory().glob("[0-9]*"):
        keeper = int(folder.name)
        if not _is_keeper(keeper):
            for process_id in processes_in_session(keeper):
                # A session outlives its number's first owner; ours know our token's place.
                if str(folder.parent / "token").encode() in _environment_of(process_id):
                    with suppress(ProcessLookupError):
                        os.kill(process_id, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)


def processes_in_session(session: int) -> list[int]:
    """The processes of a session, without its leader; none where the system has no /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z" and int(stat.parent.name) != session:
                found.append(int(stat.parent.name))
    return found


def _environment_of(process_id: int) -> bytes:
    try:
        return Path(f"/proc/{process_id}/environ").read_bytes()
    except OSError:
        return b""


def idle_minutes() -> float:
    """How long a cluster started now waits for another run: DNCTL_IDLE_MINUTES, or ten."""
    text = os.environ.get("DNCTL_IDLE_MINUTES")
    try:
        return float(text) if text else DEFAULT_IDLE_MINUTES
    except ValueError:
        raise ClusterError(f"DNCTL_IDLE_MINUTES={text!r} is no number of minutes") from None


def stop(cluster: LocalCluster) -> None:
    """End the local cluster and all that runs on it; returns when it is gone."""
    try:
        os.kill(cluster.keeper_process_id, signal.SIGTERM)
    except ProcessLookupError:
        return
    deadline = monotonic() + STOP_TIMEOUT_S
    while _is_keeper(cluster.keeper_process_id):
        if monotonic() > deadline:
            raise ClusterError(
                f"the local cluster's keeper (process {cluster.keeper_process_id}) hasn't ended in "
                f"{STOP_TIMEOUT_S:.0f} s; see {directory() / 'keeper.log'}"
            )
        sleep(0.1)
