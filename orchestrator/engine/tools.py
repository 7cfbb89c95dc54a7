"""Other people's programs (ray, kubectl, sbatch): called with lists of arguments, never through a shell."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import ClusterError

QUERY_TIMEOUT_S = 30.0


def find_tool(name: str, *, needed_for: str) -> str:
    """The path of a program; one beside this Python counts. Raises ClusterError if there is none."""
    beside = Path(sys.executable).parent / name
    path = shutil.which(name) or (str(beside) if os.access(beside, os.X_OK) else None)
    if path is None:
        raise ClusterError(f"{name} isn't installed here, and {needed_for}; install it, or go to a machine that has it")
    return path


def run_tool(
    command: Sequence[str], *, environment: Mapping[str, str] = os.environ, folder: Path | None = None
) -> None:
    """Run a program that talks to the person itself, in a folder if one is given. Raises ClusterError if it fails."""
    code = subprocess.run(command, env=dict(environment), cwd=folder, check=False).returncode
    if code != 0:
        raise ClusterError(f"{Path(command[0]).name} failed (exit code {code}): {' '.join(command)}")


def ask_tool(command: Sequence[str], *, environment: Mapping[str, str] = os.environ) -> str:
    """What a program prints. Raises ClusterError with its own words if it fails or doesn't answer."""
    name = Path(command[0]).name
    try:
        answer = subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{name} hasn't answered in {QUERY_TIMEOUT_S:.0f} s: {' '.join(command)}") from None
    if answer.returncode != 0:
        said = " ".join((answer.stderr or answer.stdout).split())
        raise ClusterError(f"{name} failed (exit code {answer.returncode}): {said or ' '.join(command)}")
    return answer.stdout
