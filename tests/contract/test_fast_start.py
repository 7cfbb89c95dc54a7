"""What needs no cluster and no network starts without torch, Ray or DALI, and without what draws on terminals."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from orchestrator.cli.app import app
from orchestrator.cli.reference import contexts
from orchestrator.run.directory import RunDirectory

COMMANDS = [context.command_path for context in contexts(typer.main.get_command(app))]


def _dnctl_alone(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.contract.without_heavy_packages", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    return answer.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_nothing_heavy(command: str):
    assert "Usage: " in _dnctl_alone(*command.split()[1:], "--help")


@pytest.mark.parametrize(
    "command",
    [
        "--version",
        "list",
        "list --json",
        "status last",
        "status last --json",
        "recipe list",
        "recipe show densenet264",
        "recipe validate densenet121",
        "recipe schema --json",
        "plan densenet169 --gpus H100:8",
        "plan densenet169 --cpus 4 --json",
        "model list",
        "model show densenet169",
        "cluster list",
        "cluster status",
        "report first --json",
        "stop first --now",
    ],
)
def test_what_only_reads_and_computes_needs_nothing_heavy(command: str, tmp_path: Path):
    RunDirectory(tmp_path / "runs" / "first").create(now=0.0)
    assert _dnctl_alone(*command.split())


def test_help_does_not_import_what_draws_on_terminals():
    program = "import sys, orchestrator.cli.app; print([name for name in sys.modules if name.startswith('rich.')])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert answer.stdout.strip() == "[]"
