"""Kernels compile for the GPUs that they are meant for, and fit there, also where no GPU is."""

import json
import os
import subprocess
import sys

import pytest

SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}
"""What a program may have of a multiprocessor's shared memory, by compute capability (CUDA C++ Programming Guide)."""


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        pytest.param(90, "bf16", marks=pytest.mark.slow),
        pytest.param(80, "bf16", marks=pytest.mark.long),
        pytest.param(90, "fp32", marks=pytest.mark.long),
    ],
)
def test_all_kernels_compile_and_fit(tmp_path, capability, dtype):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.kernels.compile_kernels", str(capability), dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    shared = json.loads(done.stdout)
    assert {name.split()[0] for name in shared} == {
        "_mix_kernel",
        "_pool_kernel",
        "_spread_kernel",
        "_sum_kernel",
        "activate_backward_kernel",
        "activate_kernel",
        "backward_kernel",
        "finish_kernel",
        "forward_kernel",
        "merge_kernel",
        "moments_kernel",
        "settle_kernel",
    }
    assert {name: size for name, size in shared.items() if size > SHARED_BYTES[capability]} == {}


def test_what_a_run_has_compiled_is_found_at_its_next_start(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    environment.pop("TRITON_CACHE_DIR", None)
    seconds, files = [], []
    for _ in range(2):
        command = [sys.executable, "-m", "tests.kernels.kept_kernel", str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        seconds.append(float(done.stdout))
        files.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.cubin")})
    assert len(files[0]) == 1
    assert files[1] == files[0]
    assert min(seconds) > 0
