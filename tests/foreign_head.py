"""A Ray head that somebody else started: its Python has the dependencies, but not dnctl; it is reached by its token."""

import os
import secrets
import socket
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from orchestrator.engine.dashboard import Dashboard, Token
from orchestrator.errors import ClusterError


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignHead:
    """A head that is up."""

    address: str
    token_path: Path
    process: "subprocess.Popen[bytes]"


def python_without_dnctl(folder: Path) -> Path:
    """The interpreter of an environment that has all packages of this one except dnctl itself."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))  # what is editable there is not read again
    python = folder / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    probe = "import ray, torch, pydantic\ntry:\n import orchestrator.errors\nexcept ImportError:\n print('none')"
    answer = subprocess.run(
        [python, "-c", probe], cwd="/", env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "none"
    return python


@contextmanager
def foreign_head(
    folder: Path, *, num_cpus: int = 2, node_ip: str = "127.0.0.3", namespace: str | None = None
) -> Iterator[ForeignHead]:
    """A head for the time of the block. folder: a short path. namespace: a network namespace to start it in."""
    python = python_without_dnctl(folder / "env")
    token_path = folder / "token"
    token_path.touch(mode=0o600)
    token_path.write_text(secrets.token_hex(32))
    gcs, dashboard, client, agent = _free_ports(4)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    environment |= {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    dashboard_ip = "127.0.0.1" if namespace is None else node_ip
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(() if namespace is None else ("ip", "netns", "exec", namespace)),
                *(python, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
                *("--node-ip-address", node_ip, "--port", gcs, "--num-cpus", str(num_cpus)),
                *("--dashboard-host", dashboard_ip, "--dashboard-port", dashboard),
                *("--ray-client-server-port", client, "--dashboard-agent-listen-port", agent),
                *("--temp-dir", str(folder / "ray")),
            ],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    head = ForeignHead(address=f"http://{dashboard_ip}:{dashboard}", token_path=token_path, process=process)
    try:
        if namespace is None:
            _wait_until_up(head, folder)
        yield head
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        _end_session(process.pid)
        process.wait(10)


def _wait_until_up(head: ForeignHead, folder: Path) -> None:
    board = Dashboard(
        address=head.address, token=Token(text=head.token_path.read_text(), source="the test"), timeout_s=5
    )
    deadline = monotonic() + 90
    while True:
        try:
            board.get("/api/jobs/")
            return
        except ClusterError:
            if head.process.poll() is not None or monotonic() > deadline:
                raise AssertionError((folder / "head.log").read_text()) from None
            sleep(0.3)


def _free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for open_socket in sockets:
            open_socket.bind(("127.0.0.1", 0))
        return [str(open_socket.getsockname()[1]) for open_socket in sockets]


def _end_session(session: int) -> None:
    """Ray's agents may outlive their raylet; they are of the session that the head was started in."""
    listing = subprocess.run(["ps", "-eo", "pid=,sid="], capture_output=True, text=True, check=True)
    for line in listing.stdout.splitlines():
        process, of = line.split()
        if int(of) == session:
            subprocess.run(["kill", "-9", process], check=False, capture_output=True)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory(prefix="dh") as place, foreign_head(Path(place)) as started:
        print(started.address, started.token_path, flush=True)
        sys.stdin.read()
