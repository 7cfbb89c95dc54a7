"""Fixtures that many tests share, and the plain account of what couldn't be run here."""

import os
import shutil
from pathlib import Path

import pytest

from tests import browser, slurm
from tests.images import write_folder

if shutil.which("nvidia-smi") is None:
    os.environ["TRITON_INTERPRET"] = "1"  # kernels are interpreted; Triton reads it when it is first imported
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of a process for each core: more would wait for each other


@pytest.fixture(scope="session")
def small_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 3 classes, 46 training and 11 validation images: batches of 16 leave a short last one of 14."""
    return write_folder(tmp_path_factory.mktemp("images"), num_train=46, num_val=11, num_classes=3)


@pytest.fixture(autouse=True)
def _apart_from_the_persons_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the runs, clusters or colours of the person who runs it."""
    for name in ("RAY_ADDRESS", "DNCTL_CLUSTER", "DNCTL_STORAGE", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DNCTL_STORAGE", str(tmp_path / "runs"))
    if "DNCTL_CLUSTER_DIR" not in os.environ:
        monkeypatch.setenv("DNCTL_CLUSTER_DIR", str(tmp_path / "local-cluster"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine has not got."""
    reasons = {"gpu": _no_gpu(), "multihost": _no_namespaces(), "slurm": slurm.missing(), "browser": browser.missing()}
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _no_gpu() -> str | None:
    return None if shutil.which("nvidia-smi") else "needs a CUDA device; this machine has none"


def _no_namespaces() -> str | None:
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    return None if shutil.which("ip") else "needs iproute2 for network namespaces"
