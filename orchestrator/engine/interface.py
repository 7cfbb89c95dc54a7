"""How gloo and NCCL are told which network interface to use. Light to import: clients need it, too."""

INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def interface_environment(name: str) -> dict[str, str]:
    """The environment in which gloo and NCCL use that interface."""
    return dict.fromkeys(INTERFACE_VARIABLES, name)
