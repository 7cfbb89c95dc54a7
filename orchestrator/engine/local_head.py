"""The keeper of this machine's cluster: holds Ray's head as a child and ends it when it has been idle for a while.

Run as `python -m orchestrator.engine.local_head TOKEN_PATH IDLE_MINUTES` by local_cluster.start. It doesn't import ray:
it stays small while it waits.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import Any

from orchestrator.engine.local_cluster import (
    START_TIMEOUT_S,
    LocalCluster,
    directory,
    find,
    processes_in_session,
    record_path,
    token_environment,
    write_record,
)

POLL_INTERVAL_S = 2.0
_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
_ACTIVE_JOBS = frozenset({"PENDING", "RUNNING"})


def main() -> int:
    """Hold Ray's head until it is idle, dies, or this process is told to end."""
    token_path, idle_minutes = Path(sys.argv[1]), float(sys.argv[2])
    ending = Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    signal.signal(signal.SIGINT, lambda *_: ending.set())
    gcs_port, dashboard_port, client_port, agent_port = free_ports(4)
    node_ip = _node_ip()
    # Sockets lie below the temporary directory: a name of its own for each head, so that old ones are never met.
    temporary = directory() / f"{os.getpid()}"
    head = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--node-ip-address", node_ip, "--port", str(gcs_port)),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard_port)),
            *("--ray-client-server-port", str(client_port), "--dashboard-agent-listen-port", str(agent_port)),
            *("--temp-dir", str(temporary), "--disable-usage-stats"),
        ],
        env={**os.environ, **_ray_environment(token_path)},
        stdin=subprocess.DEVNULL,
        preexec_fn=_end_with_keeper,
    )
    cluster = LocalCluster(
        dashboard_url=f"http://127.0.0.1:{dashboard_port}",
        gcs_address=f"{node_ip}:{gcs_port}",
        token_path=token_path,
        keeper_process_id=os.getpid(),
        idle_minutes=idle_minutes,
    )
    try:
        if not _wait_until_up(cluster, head, ending):
            return 1
        write_record(cluster)
        _keep(cluster, head, ending)
    finally:
        recorded = find()
        if recorded is not None and recorded.keeper_process_id == os.getpid():
            record_path().unlink(missing_ok=True)
        _end(head)
        shutil.rmtree(temporary, ignore_errors=True)
    return 0


def _end_with_keeper() -> None:
    """In the head, before it is Ray: ask Linux for SIGTERM when the keeper dies, also of a SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _node_ip() -> str:
    """A loopback address. Ray replaces 127.0.0.1 by the machine's outward address; on Linux it takes 127.0.0.2."""
    return "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"


def _ray_environment(token_path: Path) -> dict[str, str]:
    return {
        **token_environment(token_path),
        # Metrics exporters listen on all interfaces without asking for the token. There is a switch for the nodes', but
        # none for those of head and autoscaler: a port that can't be opened keeps them closed.
        "RAY_enable_metrics_collection": "0",
        "AUTOSCALER_METRIC_PORT": "-1",
        "DASHBOARD_METRIC_PORT": "-1",
        # A node that is ended would wait half a minute for its work to end by itself.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }


def free_ports(count: int) -> Iterator[int]:
    """Ports that nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for open_socket in sockets:
            open_socket.bind(("127.0.0.1", 0))
        return iter([open_socket.getsockname()[1] for open_socket in sockets])


def _wait_until_up(cluster: LocalCluster, head: subprocess.Popen[bytes], ending: Event) -> bool:
    deadline = monotonic() + START_TIMEOUT_S
    while monotonic() < deadline and head.poll() is None and not ending.is_set():
        if _get_jobs(cluster) is not None:
            return True
        ending.wait(0.2)
    return False


def _keep(cluster: LocalCluster, head: subprocess.Popen[bytes], ending: Event) -> None:
    """Return when the head died, the end was asked for, or no job has been active for long enough."""
    active_at = monotonic()
    while head.poll() is None and not ending.wait(POLL_INTERVAL_S):
        jobs = _get_jobs(cluster)
        if jobs is None or any(job["status"] in _ACTIVE_JOBS for job in jobs):
            active_at = monotonic()  # no answer is no reason to end what may be busy
        elif monotonic() - active_at > 60 * cluster.idle_minutes:
            return


def _get_jobs(cluster: LocalCluster) -> list[dict[str, Any]] | None:
    """The cluster's jobs, or None if it doesn't answer."""
    request = urllib.request.Request(  # noqa: S310 — always http to loopback
        f"{cluster.dashboard_url}/api/jobs/",
        headers={"Authorization": f"Bearer {cluster.token_path.read_text().strip()}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
            jobs: list[dict[str, Any]] = json.load(response)
            return jobs
    except (OSError, ValueError):
        return None


def _end(head: subprocess.Popen[bytes]) -> None:
    """End Ray's head and all processes below it; after some seconds by force.

    Ray's agents now and then outlive their raylet. All of them are in this keeper's session, so they are found there.
    """
    if head.poll() is None:
        head.terminate()
        try:
            head.wait(10)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()
    deadline = monotonic() + 5
    while others := processes_in_session(os.getpid()):
        for process_id in others:
            with suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGTERM if monotonic() < deadline else signal.SIGKILL)
        sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
