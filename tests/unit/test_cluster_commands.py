"""`dnctl cluster`: which tool is called with what, and what is said where there is no tool."""

import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from orchestrator.errors import DnctlError

SHIPPED = Path(__file__).parents[2] / "cluster"


def dnctl(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, (SystemExit, DnctlError)):
        raise result.exception
    return result


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of its own, on which a program of any name writes down how it was called and prints what it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    return folder


def install(tools: Path, name: str, *, prints: str = "", fails: str | None = None) -> None:
    ending = f"sys.stderr.write({fails!r}); sys.exit(3)" if fails is not None else ""
    script = tools / name
    script.write_text(
        f"#!{os.path.realpath('/proc/self/exe')}\n"
        "import os, sys\n"
        f"with open({str(tools / 'calls')!r}, 'a') as calls:\n"
        "    print(os.path.basename(sys.argv[0]), *sys.argv[1:], os.environ.get('RAY_AUTH_MODE', '-'), file=calls)\n"
        f"print({prints!r}, end='')\n{ending}\n"
    )
    script.chmod(0o755)


def calls(tools: Path) -> list[str]:
    path = tools / "calls"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("command", "tool"),
    [("up kuberay", "kubectl"), ("up aws --yes", "ray"), ("up slurm", "sinfo"), ("status slurm", "sinfo")],
)
def test_a_tool_that_is_missing_is_named(tools: Path, command: str, tool: str):
    result = dnctl("cluster", *command.split())
    assert isinstance(result.exception, DnctlError)
    assert result.exception.exit_code == 4
    assert f"{tool} isn't installed here" in str(result.exception)


def token(home: Path) -> None:
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("secret")


def test_rays_launcher_brings_machines_up_and_down_with_the_token(tools: Path, tmp_path: Path):
    install(tools, "ray")
    token(tmp_path)
    config = SHIPPED / "aws" / "ray.yaml"
    result = dnctl("cluster", "up", "aws", "--yes")
    assert f"ray dashboard --port 8267 {config}" in result.stdout
    assert dnctl("cluster", "down", "aws", "--yes").exit_code == 0
    assert calls(tools) == [f"ray up {config} --yes token", f"ray down {config} --yes token"]


def test_machines_that_cost_money_are_not_started_unasked(tools: Path, tmp_path: Path):
    install(tools, "ray")
    token(tmp_path)
    result = dnctl("cluster", "up", "gcp")
    assert "add --yes" in str(result.exception)
    assert calls(tools) == []


def test_a_cluster_without_a_token_is_not_started(tools: Path):
    install(tools, "ray")
    result = dnctl("cluster", "up", "aws", "--yes")
    assert "ray get-auth-token --generate" in str(result.exception)
    assert calls(tools) == []


def test_a_tool_that_fails_ends_the_command_with_what_was_called(tools: Path, tmp_path: Path):
    install(tools, "ray", fails="no credentials")
    token(tmp_path)
    result = dnctl("cluster", "up", "ssh", "--yes")
    assert isinstance(result.exception, DnctlError)
    assert "ray failed (exit code 3): " in str(result.exception)


def test_kubernetes_manifests_are_applied_in_order_and_the_volume_survives(tools: Path):
    install(tools, "kubectl", prints="persistentvolumeclaim/dnctl-storage raycluster.ray.io/dnctl\n")
    assert "kubectl port-forward service/dnctl-head-svc 8269:8265" in dnctl("cluster", "up", "kuberay").stdout
    assert dnctl("cluster", "down", "kuberay", "--yes").exit_code == 0
    storage, cluster = SHIPPED / "kuberay" / "storage.yaml", SHIPPED / "kuberay" / "cluster.yaml"
    assert calls(tools) == [
        f"kubectl apply --filename {storage} -",
        f"kubectl apply --filename {cluster} -",
        f"kubectl get --filename {cluster} --ignore-not-found -o name -",
        "kubectl delete raycluster.ray.io/dnctl -",
        f"kubectl get --filename {storage} --ignore-not-found -o name -",
        "kubectl delete raycluster.ray.io/dnctl -",
    ]


def test_slurm_has_nothing_to_bring_up_and_cancels_our_jobs_alone(tools: Path):
    install(tools, "sinfo", prints="slurm-wlm 22.05.8\n")
    install(tools, "squeue", prints="7|dnctl\n8|somebody else's\n9|dnctl\n")
    install(tools, "scancel")
    assert "dnctl launch RECIPE --cluster slurm" in dnctl("cluster", "up", "slurm").stdout
    assert "2 runs cancelled" in dnctl("cluster", "down", "slurm").stdout
    assert calls(tools)[-1] == "scancel --full 7 9 -"


def test_slurms_partitions_and_our_queue_are_shown_with_the_reason(tools: Path):
    install(tools, "sinfo", prints="gpu*|idle|3|64|gpu:h100:8|2-00:00:00\n")
    install(tools, "squeue", prints="7|big-1f|PENDING|(Resources)|dnctl\n8|x|RUNNING|n1|\n")
    document = json.loads(dnctl("cluster", "status", "slurm", "--json").stdout)
    assert document["partitions"][0]["gpus_per_node"] == "gpu:h100:8"
    assert document["runs"] == [{"job": "7", "name": "big-1f", "state": "PENDING", "reason": "Resources"}]
    assert "Resources" in dnctl("cluster", "status", "slurm").stdout


def test_profiles_are_listed_with_their_state_faulty_ones_too(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text("kind: locale\n")
    entries = {entry["name"]: entry for entry in json.loads(dnctl("cluster", "list", "--json").stdout)}
    assert entries["mine"]["state"] == "faulty"
    assert "did you mean 'local'" in entries["mine"]["where"]
    assert (entries["local"]["state"], entries["slurm"]["state"]) == ("down", "down")
    assert "no token in" in entries["kuberay"]["where"]
    assert "faulty" in dnctl("cluster", "list").stdout


def test_an_address_and_a_cluster_of_somebody_else_are_not_brought_up():
    for name in ("http://head:8265", "head"):
        result = dnctl("cluster", "up", name)
        assert isinstance(result.exception, DnctlError)
        assert result.exception.exit_code == 2
        assert "whoever keeps" in str(result.exception)


def test_a_plan_for_slurm_wants_the_nodes_described():
    result = dnctl("plan", "densenet169", "--cluster", "slurm")
    assert "--gpus TYPE:NUMBER" in str(result.exception)
    assert "give the one or the others" in str(dnctl("plan", "demo", "--cluster", "slurm", "--cpus", "4").exception)
