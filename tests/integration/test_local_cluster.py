"""The cluster of this machine leaves nothing behind: idle, beside another one, and when its keeper is killed."""

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from orchestrator.engine import local_cluster
from orchestrator.engine.dashboard import Dashboard, Token


@pytest.fixture
def folders() -> Iterator[tuple[Path, Path]]:
    """Two short paths for two clusters; whatever a failed test left there is ended."""
    with tempfile.TemporaryDirectory(prefix="dt") as first, tempfile.TemporaryDirectory(prefix="dt") as second:
        try:
            yield Path(first), Path(second)
        finally:
            for folder in (first, second):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("DNCTL_CLUSTER_DIR", folder)
                    cluster = local_cluster.find()
                    if cluster is not None:
                        local_cluster.stop(cluster)
                    local_cluster.end_remains()


@pytest.mark.ray
@pytest.mark.slow
def test_two_clusters_one_idle_one_whose_keeper_is_killed_leave_nothing(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    shared_memory = plasma_files()
    monkeypatch.setenv("DNCTL_CLUSTER_DIR", str(folders[1]))
    staying = local_cluster.find_or_start()
    assert local_cluster.find_or_start() == staying
    monkeypatch.setenv("DNCTL_CLUSTER_DIR", str(folders[0]))
    monkeypatch.setenv("DNCTL_IDLE_MINUTES", "0.02")
    idle = local_cluster.find_or_start()
    assert idle.dashboard_url != staying.dashboard_url
    wait_until(lambda: gone(idle) and not [path for path in folders[0].iterdir() if path.is_dir()])

    monkeypatch.setenv("DNCTL_CLUSTER_DIR", str(folders[1]))
    assert local_cluster.find() == staying
    token = Token(text=staying.token_path.read_text(), source="the test")
    assert Dashboard(address=staying.dashboard_url, token=token).get("/api/jobs/") == []
    os.kill(staying.keeper_process_id, signal.SIGKILL)
    wait_until(lambda: gone(staying))
    local_cluster.end_remains()
    assert [path.name for path in folders[1].iterdir() if path.is_dir()] == []
    assert plasma_files() <= shared_memory


def plasma_files() -> set[Path]:
    return set(Path("/dev/shm").glob("plasma*"))


def gone(cluster: local_cluster.LocalCluster) -> bool:
    """Whether no process and no port of it is left, and nobody finds it."""
    ports = [cluster.dashboard_url.rpartition(":")[2], cluster.gcs_address.rpartition(":")[2]]
    return (
        local_cluster.find() is None
        and local_cluster.processes_in_session(cluster.keeper_process_id) == []
        and not any(answers(cluster.gcs_address.partition(":")[0], int(port)) for port in ports)
    )


def answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 60
    while not condition():
        assert monotonic() < deadline
        sleep(0.5)


RECORD = (
    b'{"format_version": 1, "dashboard_url": "http://127.0.0.1:1", "gcs_address": "127.0.0.2:2",'
    b' "token_path": "/token", "keeper_process_id": %b, "idle_minutes": 10}'
)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b'{"format_version": 1}',
        b'{"format_version": 9, "dashboard_url": "http://127.0.0.1:1"}',
        RECORD % b"1",
        RECORD % b"4194304",
    ],
)
def test_a_record_that_is_stale_or_damaged_counts_for_nothing(record: bytes):
    local_cluster.record_path().write_bytes(record)
    assert local_cluster.find() is None


def test_only_what_knows_our_token_is_ended_with_the_remains():
    leftover = local_cluster.directory() / "1"  # process 1 is no keeper of ours, and its session isn't ours to end
    (leftover / "session").mkdir(parents=True)
    local_cluster.end_remains()
    assert not leftover.exists()
    os.kill(1, 0)
