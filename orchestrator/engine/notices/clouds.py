"""Which cloud this machine belongs to, by what its firmware says: no server is asked to find out."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.engine.notices import aws, azure, gcp
from orchestrator.engine.notices.notice import Cloud
from orchestrator.errors import UsageError

VARIABLE = "DNCTL_CLOUD"
"""Says it where the firmware doesn't: aws, gcp, azure or none; `aws=http://HOST:PORT` if its server is elsewhere."""

FIRMWARE = Path("/sys/class/dmi/id")

_CLOUDS: Mapping[str, tuple[Callable[[str], Cloud], str]] = {
    "aws": (aws.Aws, aws.ADDRESS),
    "gcp": (gcp.Gcp, gcp.ADDRESS),
    "azure": (azure.Azure, azure.ADDRESS),
}
_MARKS = (
    ("sys_vendor", "Amazon EC2", "aws"),
    ("bios_version", "amazon", "aws"),  # older instances, on Xen
    ("product_name", "Google Compute Engine", "gcp"),
    ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", "azure"),
)
"""A file of the firmware's, what it holds, and whose machine that is."""


def find_cloud(environment: Mapping[str, str], firmware: Path = FIRMWARE) -> Cloud | None:
    """The cloud whose notices concern this machine; None if it is in none. Raises UsageError for a bad DNCTL_CLOUD."""
    said = environment.get(VARIABLE, "")
    name, _, address = said.partition("=") if said else (_by_firmware(firmware), "", "")
    if name == "none" and not address:
        return None
    if name not in _CLOUDS or not re.fullmatch(r"(http://[\w.-]+(:\d{1,5})?/?)?", address):
        raise UsageError(
            f"{VARIABLE}={said!r} names no cloud; allowed: {', '.join(_CLOUDS)} or none, and with a cloud the address "
            "of its metadata server if it isn't the usual one, such as aws=http://127.0.0.1:8111"
        )
    make, usual_address = _CLOUDS[name]
    return make(address.rstrip("/") or usual_address)


def _by_firmware(firmware: Path) -> str:
    for file, mark, name in _MARKS:
        try:
            text = (firmware / file).read_text(errors="replace")
        except OSError:
            continue
        if mark in text:
            return name
    return "none"
