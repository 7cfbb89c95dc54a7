"""What a cluster has, told by a person or found on this machine."""

from pathlib import Path

import pytest

from orchestrator.errors import PlanError
from orchestrator.plan.cluster import described_shape, installed_loader, local_shape

MIB = 2**20


def nvidia_smi(folder: Path, *lines: str, code: int = 0) -> None:
    """A program that answers as nvidia-smi does."""
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines) + f"exit {code}\n")
    program.chmod(0o755)


def test_gpus_are_described_by_type_and_number():
    shape = described_shape("H100:8", 96)
    assert (shape.num_gpus, shape.gpu_type, shape.num_cpus) == (8, "H100", 96)
    assert str(shape) == "96 CPU cores, 8 x H100"


def test_gpus_may_go_without_a_type_and_cores_are_then_assumed():
    assert (described_shape("4", None).num_gpus, described_shape("4", None).num_cpus) == (4, 32)


def test_a_cluster_may_have_no_gpu():
    assert described_shape(None, 16).num_gpus == 0


@pytest.mark.parametrize("gpus", ["H100", "8:H100", "", "-1"])
def test_other_descriptions_are_refused(gpus: str):
    with pytest.raises(PlanError, match="allowed: a number or TYPE:NUMBER, such as H100:8"):
        described_shape(gpus, None)


def test_gpus_of_this_machine_are_asked_of_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nvidia_smi(tmp_path, "NVIDIA H100 80GB HBM3, 81559", "NVIDIA H100 80GB HBM3, 81559")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    shape = local_shape()
    assert (shape.num_gpus, shape.gpu_type, shape.gpu_memory_bytes) == (2, "NVIDIA H100 80GB HBM3", 81559 * MIB)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert local_shape().num_gpus == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (local_shape().num_gpus, local_shape().gpu_type) == (0, None)


def test_a_driver_without_a_device_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nvidia_smi(tmp_path, "No devices were found", code=6)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local_shape().num_gpus == 0


def test_a_machine_without_nvidia_smi_has_cores_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local_shape().num_gpus == 0
    assert local_shape().num_cpus >= 1


def test_a_loader_is_always_there():
    assert installed_loader() in ("dali", "pytorch")
