"""The network interface that workers talk over; gloo and NCCL guess it by host name, wrongly on many machines."""

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
import sys
from typing import Any

import ray
import ray.train.torch

from orchestrator.engine.interface import INTERFACE_VARIABLES, interface_environment
from orchestrator.errors import ClusterError

_SIOCGIFADDR = 0x8915
"""From linux/sockios.h: the IPv4 address of an interface."""


class TorchOnInterface(ray.train.torch.TorchConfig):  # type: ignore[misc]
    """Ray's set-up of torch.distributed, each worker on the interface that carries its node's address in Ray."""

    @property
    def backend_cls(self) -> type[Any]:
        """Ray's backend, with the interface chosen before the process group is made."""
        base: type[Any] = super().backend_cls

        class Backend(base):  # type: ignore[misc]
            def on_start(self, worker_group: Any, backend_config: Any) -> None:
                worker_group.execute(use_own_interface)
                super().on_start(worker_group, backend_config)

        return Backend


def use_own_interface() -> None:
    """Let gloo and NCCL in this process use the interface of its node, unless one is named in the environment."""
    if any(os.environ.get(variable) for variable in INTERFACE_VARIABLES):
        return
    interface = interface_of(ray.util.get_node_ip_address())
    if interface is not None:
        os.environ.update(interface_environment(interface))


def own_address(interface: str) -> str:
    """This machine's IPv4 address on an interface; the one that Ray would take, if the name is empty.

    Raises ClusterError if there is no such interface.
    """
    if not interface:
        return str(ray.util.get_node_ip_address())
    addresses = _addresses()
    if interface not in addresses:
        raise ClusterError(f"there is no interface {interface!r} with an address here, but {', '.join(addresses)}")
    return addresses[interface]


def interface_of(address: str) -> str | None:
    """The interface with that IPv4 address; None if there is none, or this system has no way to tell."""
    for name, own in _addresses().items():
        if own == address or (ipaddress.ip_address(own).is_loopback and ipaddress.ip_address(address).is_loopback):
            return name
    return None


def _addresses() -> dict[str, str]:
    """The first IPv4 address of each interface that has one; empty where the system has no way to tell."""
    addresses: dict[str, str] = {}
    if sys.platform != "linux":
        return addresses
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                addresses[name] = socket.inet_ntoa(answer[20:24])
    return addresses
