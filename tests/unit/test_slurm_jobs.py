"""Runs as jobs of Slurm: what its commands are asked, and how a run that is to be queued again ends."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from time import time

import pytest

from orchestrator.engine.driver import drive
from orchestrator.engine.slurm import SlurmJobs, ask_for_requeue
from orchestrator.engine.turn import Tell
from orchestrator.errors import ClusterError, RunStoppedError
from orchestrator.run.directory import AttemptDirectory, RunDirectory
from orchestrator.run.ending import Ending, record_ending
from orchestrator.run.state import State, write_state
from orchestrator.run.stop import StopRequest, ask_first_to_stop, ask_to_stop, read_stop_request


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "runs" / "one")
    run.create(now=time())
    return run


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which Slurm's commands write down their arguments and print the content of NAME.says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        (folder / name).write_text(
            f"#!{os.path.realpath(sys.executable)}\n"
            "import json, os, sys\n"
            f"call = {{'arguments': sys.argv[1:], 'gloo': os.environ.get('GLOO_SOCKET_IFNAME')}}\n"
            f"open({str(folder / name)!r} + '.call', 'w').write(json.dumps(call))\n"
            f"path = {str(folder / name)!r} + '.says'\n"
            "print(open(path).read() if os.path.exists(path) else '', end='')\n"
        )
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def call(tools: Path, name: str) -> dict[str, object]:
    document: dict[str, object] = json.loads((tools / f"{name}.call").read_text())
    return document


def test_a_run_is_submitted_under_our_id_with_its_log_in_its_directory(tools: Path, run: RunDirectory):
    SlurmJobs(Path("/site/run.sbatch"), interface="ib0").submit(run, "one-1f")
    assert call(tools, "sbatch") == {
        "arguments": [
            "--parsable",
            "--job-name=one-1f",
            "--comment=dnctl",
            f"--output={run.path}/slurm.log",
            "--open-mode=append",
            "/site/run.sbatch",
            str(run.path),
        ],
        "gloo": "ib0",
    }


def test_a_run_after_another_is_held_back_by_slurm_itself(tools: Path, run: RunDirectory):
    before = RunDirectory(run.path.parent / "before")
    before.create(now=time())
    write_state(before.state, replace(before.read_state(), job_id="before-1f"))
    write_state(run.state, replace(run.read_state(), after=("before",)))
    (tools / "squeue.says").write_text("812\n")
    SlurmJobs(Path("/site/run.sbatch"), interface=None).submit(run, "one-1f")
    assert "--dependency=afterany:812" in str(call(tools, "sbatch")["arguments"])
    assert "--name=before-1f" in str(call(tools, "squeue")["arguments"])


def test_a_run_after_one_of_another_cluster_is_refused_by_slurm(tools: Path, run: RunDirectory):
    RunDirectory(run.path.parent / "before").create(now=time())
    write_state(run.state, replace(run.read_state(), after=("before",)))
    with pytest.raises(ClusterError, match="before has none in this queue"):
        SlurmJobs(Path("/site/run.sbatch"), interface=None).submit(run, "one-1f")


@pytest.mark.parametrize(
    ("said", "status", "message", "is_over"),
    [
        ("PENDING|Resources\n", "PENDING", "Slurm: Resources", False),
        ("PENDING|BeginTime\n", "PENDING", "Slurm: BeginTime", False),
        ("COMPLETING|None\n", "RUNNING", "", False),
        ("CANCELLED|None\nRUNNING|None\n", "RUNNING", "", False),
        ("NODE_FAIL|NodeDown\n", "FAILED", "Slurm says NODE_FAIL, NodeDown", True),
        ("", "FAILED", "Slurm has it no more", True),
    ],
)
def test_a_job_is_reported_as_slurm_has_it(tools: Path, said: str, status: str, message: str, is_over: bool):
    (tools / "squeue.says").write_text(said)
    report = SlurmJobs(Path("x"), interface=None).report("one-1f")
    assert (report.status, report.message, report.is_over) == (status, message, is_over)
    assert "--name=one-1f" in str(call(tools, "squeue"))


def test_a_job_is_cancelled_by_its_name_its_batch_script_too(tools: Path):
    SlurmJobs(Path("x"), interface=None).end("one-1f")
    assert call(tools, "scancel")["arguments"] == ["--me", "--name=one-1f", "--full"]


def test_a_job_shows_what_its_script_printed(tools: Path, run: RunDirectory):
    jobs = SlurmJobs(Path("x"), interface=None)
    assert jobs.log_tail(run, "one-1f") == ""
    (run.path / "slurm.log").write_text("a\nb\nc\n")
    assert jobs.log_tail(run, "one-1f", num_lines=2) == "b\nc"


def test_without_slurm_there_is_one_message(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ClusterError, match="sbatch isn't installed here, and runs of this cluster are jobs of Slurm"):
        SlurmJobs(Path("x"), interface=None)


def stop_on_request(request: StopRequest | None, run: RunDirectory) -> int:
    """Drive a run whose training stops because of that request, asked for by the queue or by a person."""

    def fit(run: RunDirectory, attempt: AttemptDirectory, holder: str, tell: Tell) -> None:
        if request is not None:
            ask_first_to_stop(run.stop_request, request)
        record_ending(
            attempt, Ending(outcome="stopped", reason="stopped on request", exit_code=RunStoppedError.exit_code)
        )

    return drive(run, fit)


def test_a_run_that_its_queue_stopped_waits_for_the_next_turn(run: RunDirectory):
    assert stop_on_request(StopRequest(requeue=True), run) == 6
    record = run.read_state()
    assert (record.state, record.finished_at, record.exit_code) == (State.PENDING, None, None)
    assert "waiting for the next turn" in record.reason
    assert not run.stop_request.exists(), "the next attempt would stop at once"
    assert stop_on_request(None, run) == 6
    assert run.read_state().attempt == 2


def test_a_run_that_a_person_stopped_stays_stopped(run: RunDirectory):
    assert stop_on_request(StopRequest(), run) == 6
    assert run.read_state().state is State.STOPPED


def test_a_persons_stop_is_not_replaced_by_the_queues(run: RunDirectory):
    ask_to_stop(run.stop_request)
    ask_for_requeue(run)
    assert read_stop_request(run.stop_request) == StopRequest()
