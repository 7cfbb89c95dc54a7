"""Several hosts on this machine: network namespaces joined by a bridge, each with a Ray node of its own.

What is done to a host here is what happens to real ones: its processes die, its network goes, it is told that it will
be taken away. Every process of a host is started in its namespace and ended with it.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from types import MappingProxyType
from typing import Any

NOBODY = "02:00:00:00:00:01"
"""A hardware address that no host has: what is sent there is heard by nobody."""

RAY = (sys.executable, "-m", "ray.scripts.scripts")
GCS_PORT, DASHBOARD_PORT = 6379, 8265
START_TIMEOUT_S = 90.0
START_TRIES = 3
METADATA_PORT = "8111"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One namespace."""

    namespace: str
    address: str

    def run(self, *command: str, environment: Mapping[str, str], timeout_s: float = 120) -> str:
        """Run a command on the host and return what it printed."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *command: str, environment: Mapping[str, str] = MappingProxyType({})) -> subprocess.Popen[bytes]:
        """Start a command on the host and leave it to itself; it ends with the host."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *command],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def process_ids(self) -> list[int]:
        """Everything that runs on the host."""
        return [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]


@dataclass(slots=True, kw_only=True)
class Hosts:
    """A network of hosts and the Ray cluster on them; the first is the head."""

    folder: Path
    hosts: list[Host] = field(default_factory=list)
    bridge: str = ""
    subnet: str = ""
    gone: set[str] = field(default_factory=set)
    """Namespaces of hosts that Ray has lost, or will have."""
    num_cpus: dict[str, int] = field(default_factory=dict)
    """By namespace: the cores that Ray may give away there."""

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be let in."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # where the driver's `python` is found
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAY_raylet_start_wait_time_s": "120",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "3000",
            "RAY_health_check_failure_threshold": "3",
        }

    @property
    def head(self) -> Host:
        """Where the head is, and the drivers of runs."""
        return self.hosts[0]

    @property
    def dashboard(self) -> str:
        """Where jobs are submitted to."""
        return f"http://{self.head.address}:{DASHBOARD_PORT}"

    def up(self, cpus: Sequence[int]) -> None:
        """Make a host for each entry, with so many CPU cores, and the Ray cluster on them."""
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self._make_bridge()
        for num_cpus in cpus:
            self.num_cpus[self.add_empty().namespace] = num_cpus
        self._start_nodes()

    def _start_nodes(self) -> None:
        for host in self.hosts:
            self.start_node(host, self.num_cpus[host.namespace], is_head=host is self.head)

    def add(self, num_cpus: int, *, cloud: str | None = None) -> Host:
        """One more host, with a Ray node. cloud: whose metadata server it has on its loopback."""
        host = self.add_empty()
        self.start_node(host, num_cpus, variables=_elsewhere(cloud) if cloud else {})
        if cloud:
            self.notices(host).mkdir()
            host.start(sys.executable, "-m", "tests.metadata_servers", cloud, METADATA_PORT, str(self.notices(host)))
        return host

    def add_empty(self) -> Host:
        """One more host, with nothing on it."""
        host = self._make_host(len(self.hosts))
        self.hosts.append(host)
        return host

    def notices(self, host: Host) -> Path:
        """The folder of what a host's metadata server announces."""
        return self.folder / f"notices-{host.namespace}"

    def start_node(
        self,
        host: Host,
        num_cpus: int,
        *,
        is_head: bool = False,
        variables: Mapping[str, str] = MappingProxyType({}),
        hidden: Path | None = None,
    ) -> None:
        """Start Ray on a host, with these variables in its environment.

        hidden: a folder in whose place the host has one of its own.
        """
        self.num_cpus[host.namespace] = num_cpus
        role = (
            [*("--head", "--port", str(GCS_PORT), "--dashboard-host", host.address), "--disable-usage-stats"]
            if is_head
            else ["--address", f"{self.head.address}:{GCS_PORT}"]
        )
        common = ["--node-ip-address", host.address, "--num-cpus", str(num_cpus)]
        common += ["--object-store-memory", "100000000"]
        temporary = ["--temp-dir", str(self.folder / host.namespace)] if is_head else []
        start = [*RAY, "start", *role, *common, *temporary]
        if hidden is not None:  # `ip netns exec` has mounts of its own
            start = ["sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "sh", *start]
        for tries_left in reversed(range(START_TRIES)):
            try:
                host.run(*start, environment={**self.environment, **variables})
                return
            except AssertionError:  # Ray waits for half a minute, which a busy machine may exceed
                if not tries_left:
                    raise
                for process_id in host.process_ids():
                    _kill(process_id)

    def _make_bridge(self) -> None:
        tag = secrets.token_hex(2)
        self.bridge, self.subnet = f"dn{tag}", f"10.{77 + int(tag[:2], 16) % 100}.{int(tag[2:], 16)}"
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{self.subnet}.254/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")

    def _make_host(self, number: int) -> Host:
        name = f"{self.bridge}h{number}"
        host = Host(namespace=name, address=f"{self.subnet}.{number + 1}")
        _ip("netns", "add", name)
        _ip("link", "add", f"{name}o", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", f"{name}o", "master", self.bridge, "up")
        _ip("-n", name, "addr", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        return host

    def node_id(self, host: Host) -> str:
        """Ray's id of a host's node."""
        (node,) = [node for node in self.nodes() if node["node_ip"] == host.address]
        return str(node["node_id"])

    def nodes(self) -> list[dict[str, Any]]:
        """Ray's living nodes."""
        listed = json.loads(
            self.head.run(
                *RAY,
                "list",
                "nodes",
                "--format",
                "json",
                environment=self.environment | {"RAY_ADDRESS": self.dashboard},
            )
        )
        return [node for node in listed if node["state"] == "ALIVE"]

    def workers(self, number: int) -> list[Host]:
        """So many hosts that compute, with a core each; those that are missing are added."""
        while len(living := [host for host in self.hosts[1:] if host.namespace not in self.gone]) < number:
            self.add(1)
        return living

    def drain(self, host: Host, *, deadline_s: int) -> None:
        """Announce that a host will be taken away."""
        self.gone.add(host.namespace)
        self.head.run(
            *RAY,
            "drain-node",
            "--address",
            f"{self.head.address}:{GCS_PORT}",
            "--node-id",
            self.node_id(host),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test", "--deadline-remaining-seconds"),
            str(deadline_s),
            environment=self.environment,
        )

    def kill(self, host: Host) -> None:
        """End all processes of a host at once, as when its power goes."""
        self.gone.add(host.namespace)
        for process_id in host.process_ids():
            _kill(process_id)

    def host_of(self, process_id: int) -> Host:
        """The host that a process runs on."""
        namespace = _ip("netns", "identify", str(process_id)).strip()
        (host,) = [host for host in self.hosts if host.namespace == namespace]
        return host

    def reboot(self, host: Host) -> None:
        """End what is left on a host, bring its network back, and let it join the cluster anew."""
        self._end_processes(host)
        self.plug(host)
        self.start_node(host, self.num_cpus[host.namespace])
        self.gone.discard(host.namespace)

    def reboot_all(self) -> None:
        """A new cluster on the same hosts, as after its head has died."""
        for host in self.hosts:
            self._end_processes(host)
            self.plug(host)
        self._start_nodes()
        self.gone.clear()

    def mute(self, host: Host) -> None:
        """Cut a host's network in one direction: it hears the others and isn't heard."""
        for other in self._others(host):
            _ip("-n", host.namespace, "neigh", "replace", other, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent")

    def deafen(self, host: Host) -> None:
        """Cut a host's network in the other direction: it is heard and hears nothing."""
        for other in self.hosts:
            if other is not host:
                where = ("dev", "eth0", "nud", "permanent")
                _ip("-n", other.namespace, "neigh", "replace", host.address, "lladdr", NOBODY, *where)

    def _others(self, host: Host) -> list[str]:
        return [other.address for other in self.hosts if other is not host]

    def unplug(self, host: Host) -> None:
        """Cut a host's network in both directions; its processes live on."""
        self.gone.add(host.namespace)
        _ip("link", "set", f"{host.namespace}o", "down")

    def plug(self, host: Host) -> None:
        """Bring the network back, whichever direction was cut."""
        _ip("link", "set", f"{host.namespace}o", "up")
        _ip("-n", host.namespace, "neigh", "flush", "nud", "permanent", "dev", "eth0")
        for other in self.hosts:
            if other is not host:
                _ip("-n", other.namespace, "neigh", "flush", "to", host.address, "nud", "permanent", "dev", "eth0")

    def down(self) -> None:
        """End everything and remove the network."""
        for host in self.hosts:
            self._end_processes(host)
            _ip("netns", "del", host.namespace)
        if self.bridge:
            _ip("link", "del", self.bridge)

    def _end_processes(self, host: Host) -> None:
        deadline = monotonic() + 20
        while (process_ids := host.process_ids()) and monotonic() < deadline:
            for process_id in process_ids:
                _kill(process_id)
            sleep(0.1)


def _elsewhere(cloud: str) -> dict[str, str]:
    """The environment of a node whose cloud's metadata server is on its own loopback."""
    return {"DNCTL_CLOUD": f"{cloud}=http://127.0.0.1:{METADATA_PORT}"}


def _kill(process_id: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGKILL)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout
