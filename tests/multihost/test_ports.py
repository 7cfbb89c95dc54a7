"""What another host gets on the ports that a cluster of ours opens: nothing without its token."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import pytest

from orchestrator.engine import local_cluster

pytestmark = [pytest.mark.multihost, pytest.mark.ray, pytest.mark.slow]

HERE, THERE = "198.51.100.1", "198.51.100.2"
"""Of a block of addresses that is for examples and used by nobody."""

Answers = dict[str, dict[str, dict[str, str]]]


@contextmanager
def other_host() -> Iterator[list[str]]:
    """What to put before a command so that it runs on a host that reaches this one at HERE."""
    name = f"dnports{os.getpid() % 10000}"
    ours, theirs = f"p{os.getpid() % 10000}a", f"p{os.getpid() % 10000}b"
    ip("netns", "add", name)
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        ip("addr", "add", f"{HERE}/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", f"{THERE}/24", "dev", theirs)
        ip("-n", name, "link", "set", theirs, "up")
        yield ["ip", "netns", "exec", name]
    finally:
        ip("netns", "del", name)  # and with it both ends of the cable


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def listening(session: int) -> dict[str, set[str]]:
    """Port to the addresses that processes of a session listen on."""
    own = {f"pid={process}," for process in local_cluster.processes_in_session(session)}
    lines = subprocess.run(["ss", "-Hltnp"], check=True, capture_output=True, text=True).stdout.splitlines()
    ports: dict[str, set[str]] = {}
    for line in lines:
        if any(process in line for process in own):
            address, _, port = line.split()[3].rpartition(":")
            ports.setdefault(port, set()).add(address.strip("[]").removeprefix("::ffff:"))
    return ports


def test_another_host_gets_nothing_without_the_token(monkeypatch: pytest.MonkeyPatch):
    with tempfile.TemporaryDirectory(prefix="dp") as folder:
        monkeypatch.setenv("DNCTL_CLUSTER_DIR", folder)
        cluster = local_cluster.find_or_start()
        try:
            ports = all_ports(cluster.keeper_process_id)
            with other_host() as there:
                nobody, wrong, right = (
                    ask(there, ports, "all"),
                    ask(there, ports, "all", "0" * 64),
                    ask(there, ports, "control", cluster.token_path.read_text()),
                )
        finally:
            local_cluster.stop(cluster)
    gcs = cluster.gcs_address.rpartition(":")[2]
    assert right[gcs]["grpc"] == {"/ray.rpc.NodeInfoGcsService/GetAllNodeInfo": "OK"}, "the calls are no calls"
    reached = {port for port in ports if "UNAUTHENTICATED" in nobody[port]["grpc"].values()}
    assert gcs in reached
    assert reached == {port for port, addresses in ports.items() if "*" in addresses or "0.0.0.0" in addresses}
    for answers in (nobody, wrong):
        for port in ports:
            assert set(answers[port]["grpc"].values()) <= {"UNAUTHENTICATED", "UNIMPLEMENTED", "UNAVAILABLE"}, port
            # A gRPC port answers HTTP with what is none; one on loopback isn't reached at all.
            assert set(answers[port]["http"].values()) <= {"BadStatusLine", "ConnectionRefusedError"}, port


def all_ports(session: int) -> dict[str, set[str]]:
    """The ports of a head once its last process, the node's agent, listens and nothing has been added for a while."""
    deadline, ports = monotonic() + 60, {}
    while monotonic() < deadline:
        before, ports = ports, listening(session)
        if len(ports) >= 8 and ports == before:
            return ports
        sleep(2)
    raise AssertionError(f"the head didn't come up whole: {ports}")


def ask(there: list[str], ports: dict[str, Any], which: str, *token: str) -> Answers:
    command = [*there, sys.executable, "-m", "tests.multihost.caller", HERE, ",".join(ports), which, *token]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    said: Answers = json.loads(answer.stdout)
    return said
