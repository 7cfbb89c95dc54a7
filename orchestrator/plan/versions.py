"""Versions of what a run's numbers depend on, read without importing any of it."""

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    "dnctl",
    "numpy",
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
    "pillow",
    "ray",
    "timm",
    "torch",
    "torchvision",
)


def installed_versions() -> dict[str, str]:
    """Package name to version, of those that are installed here, and Python's own."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
