"""Versions of what a run's numbers depend on, read without importing any of it."""

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version

COMPILER = "c++"
"""The name under which the C++ compiler counts among the versions; the fused block is built with it."""
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
    if compiler := _compiler_version():
        versions[COMPILER] = compiler
    return versions


@cache
def _compiler_version() -> str | None:
    """Of the compiler that CXX names, or of g++."""
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    if compiler is None:
        return None
    told = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or None
