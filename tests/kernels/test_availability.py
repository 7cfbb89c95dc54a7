"""Where Triton couldn't start, nothing tries it, and one line says what is missing."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from orchestrator.kernels.availability import has_triton


@pytest.fixture(autouse=True)
def _on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As on a machine with a GPU, a C compiler and Python's headers."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(sysconfig, "get_path", lambda name, scheme: str(tmp_path))
    monkeypatch.setenv("CC", "cc")
    has_triton.cache_clear()
    yield
    has_triton.cache_clear()


def test_it_runs_where_all_is_there(caplog):
    assert has_triton("cuda")
    assert not has_triton("cpu")
    assert not caplog.text


def test_an_older_gpu_does_without_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert not has_triton("cuda")


def test_without_a_compiler_or_headers_nothing_is_tried_and_it_is_said_once(monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    for _ in range(2):
        assert not has_triton("cuda")
    assert caplog.text.count("install gcc") == 1
    has_triton.cache_clear()
    monkeypatch.setenv("CC", "cc")
    (tmp_path / "Python.h").unlink()
    assert not has_triton("cuda")
    assert "install Python's headers" in caplog.text
