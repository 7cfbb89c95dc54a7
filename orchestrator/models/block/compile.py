"""Building native.cpp for this machine, once: the library is cached by source, compiler and kind of processor.

A file lock lets one of several processes build while the others wait. The cache is under $DNCTL_KERNEL_CACHE, or else
$XDG_CACHE_HOME or ~/.cache, so a run that starts again on the same machine doesn't pay again.
"""

import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from orchestrator.errors import PlanError

_SOURCE: Final = Path(__file__).with_name("native.cpp")
_FLAGS: Final = (
    *("-O3", "-march=native", "-mprefer-vector-width=512", "-std=c++17", "-fopenmp"),
    *("-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"),
)
_TIMEOUT_S: Final = 300
_log = logging.getLogger(__name__)


class NoCompilerError(PlanError):
    """The library can't be had on this machine; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A library that is loaded."""

    library: ctypes.CDLL
    compile_s: float
    """0 where it was found in the cache."""


def build() -> Built:
    """The library for this machine, from the cache or compiled now. Raises NoCompilerError."""
    compiler = _find_compiler()
    path = cache_folder() / f"block-{_key(compiler)}.so"
    compile_s = 0.0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                compile_s = _compile(compiler, path)
        return Built(library=ctypes.CDLL(str(path)), compile_s=compile_s)
    except OSError as error:
        raise NoCompilerError(f"the library of the fused block can't be kept or loaded: {error}") from error


def cache_folder() -> Path:
    """Where compiled libraries are kept."""
    if own := os.environ.get("DNCTL_KERNEL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dnctl" / "kernels"


def _find_compiler() -> str:
    wanted = os.environ.get("CXX") or "g++"
    found = shutil.which(wanted)
    if found is None:
        raise NoCompilerError(
            f"there is no compiler {wanted}: install g++, name another one in CXX, or set model.block=reference"
        )
    return found


def _key(compiler: str) -> str:
    """What the library depends on, hashed."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    parts = (_SOURCE.read_bytes(), " ".join(_FLAGS).encode(), compiler.encode(), version, _processor().encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    told = {line.split(":")[0].strip(): line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return "\n".join([platform.machine(), *told.values()])


def _compile(compiler: str, path: Path) -> float:
    """Seconds that it took. The library appears whole or not at all."""
    started_at = perf_counter()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [compiler, *_FLAGS, "-o", str(made), str(_SOURCE)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise NoCompilerError(f"{compiler} took more than {_TIMEOUT_S} s for the fused block") from None
        if done.returncode:
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise NoCompilerError(f"{compiler} can't compile the fused block: {first}")
        made.replace(path)
    elapsed = perf_counter() - started_at
    _log.info("compiled the fused block in %.1f s: %s", elapsed, path)
    return elapsed
