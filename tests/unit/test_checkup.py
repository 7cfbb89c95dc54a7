"""What nodes have in common is found by real ranks over gloo; and what `doctor --cluster` makes of it."""

import json
import multiprocessing
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from orchestrator.cli import doctor
from orchestrator.engine import ask_checkup, checkup, short_job
from orchestrator.engine.ask_checkup import Checkup, Rank
from orchestrator.errors import ClusterError, DataError, UsageError
from orchestrator.train.world import World


def _rank(rank: int, folders: Sequence[Path], ahead_s: float, port: int, answers: Any) -> None:
    """One rank, which sees its own folder as the run's; the second one's clock is ahead."""
    checkup.STORAGE_WAIT_S = 1.0
    now = checkup.time
    checkup.time = lambda: now() + rank * ahead_s  # type: ignore[assignment]
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=len(folders))
    world = World(rank=rank, size=len(folders), device=torch.device("cpu"))
    check = checkup.check_group(world, folders[rank] / "checkup")
    answers.put((rank, check, list(check.faults(folders[0]))))
    distributed.destroy_process_group()


def _check(folders: Sequence[Path], *, ahead_s: float = 0.0) -> tuple[checkup.GroupCheck, list[str]]:
    """What all ranks found alike."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(rank, folders, ahead_s, port, answers)) for rank in range(len(folders))
    ]
    for process in ranks:
        process.start()
    found = [answers.get(timeout=120) for _ in ranks]
    for process in ranks:
        process.join(30)
    (_, check, faults), *others = found
    assert all((other, fault) == (check, faults) for _, other, fault in others)
    return check, faults


@pytest.mark.slow
def test_ranks_that_share_storage_and_a_network_have_no_faults(tmp_path: Path):
    check, faults = _check([tmp_path, tmp_path], ahead_s=30.0)
    assert faults == []
    assert (check.backend, check.sum_is_right, len(check.ranks)) == ("gloo", True, 2)
    assert 29 < check.clock_difference_s < 31
    assert list(tmp_path.iterdir()) == [], "nothing is left of it"


@pytest.mark.slow
def test_nodes_without_shared_storage_are_named(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    _, (fault,) = _check([tmp_path / "a", tmp_path / "b"])
    host = socket.gethostname()
    assert fault.startswith(
        f"the nodes don't share {tmp_path}/a (worker 1 on {host}: what the others write there isn't to be seen); mount"
    )


def test_one_rank_alone_is_checked_without_a_network(tmp_path: Path):
    check = checkup.check_group(World.single(), tmp_path / "checkup")
    assert (check.backend, list(check.faults(tmp_path)), check.clock_difference_s) == ("none", [], 0.0)


FOUND = Checkup(
    backend="nccl",
    sum_bytes=4 << 20,
    sum_s=0.002,
    clock_difference_s=0.003,
    ranks=tuple(
        Rank(host=f"node-{number}", device="cuda", interface="ib0", gpus=8, clock_ahead_s=0.0) for number in range(2)
    ),
    num_nodes=3,
    gpus_in_ray=16,
    faults=(),
)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (FOUND, [("node", "ok", "node-0: 8 GPUs, over ib0"), ("nccl", "ok", "4.0 MiB over 2 nodes in 2 ms")]),
        (FOUND, [("nodes", "note", "1 of 3 were left out: busy"), ("clocks", "ok", "differ by 3 ms")]),
        (replace(FOUND, backend="gloo"), [("gloo", "note", "a sum of 4.0 MiB")]),
        (replace(FOUND, clock_difference_s=9.0), [("clocks", "fault", "they differ by 9e+03 ms")]),
        (replace(FOUND, num_nodes=2, gpus_in_ray=17), [("GPUs", "fault", "Ray counts 17, the driver shows 16")]),
        (replace(FOUND, faults=("the nodes don't share /runs",)), [("nodes", "fault", "don't share /runs")]),
    ],
)
def test_doctor_says_of_a_cluster_what_was_found(
    monkeypatch: pytest.MonkeyPatch, found: Checkup, said: list[tuple[str, str, str]]
):
    monkeypatch.setattr(ask_checkup, "ask_checkup", lambda *_: found)
    findings = [
        (finding.subject, finding.verdict, finding.found) for finding in doctor.examine_cluster("http://127.0.0.1:1")
    ]
    for subject, verdict, text in said:
        assert any((subject, verdict) == each[:2] and text in each[2] for each in findings), findings


def test_slurm_has_no_nodes_to_look_at_without_a_job(tmp_path: Path):
    from orchestrator.engine.clusters import Cluster

    with pytest.raises(UsageError, match="every run looks at its own nodes before it begins"):
        ask_checkup.ask_checkup(Cluster(name="slurm", slurm_script=tmp_path / "run.sbatch"), tmp_path)


class FakeJobs:
    """A job that is over at once, with that log."""

    def __init__(self, log: str) -> None:
        self._log = log

    def __call__(self, cluster: object) -> "FakeJobs":
        return self

    def start(self, module: str, arguments: Sequence[str], job_id: str, *, metadata: object) -> None:
        """Nothing to start."""

    def report(self, job_id: str) -> Any:
        from orchestrator.engine.jobreport import JobReport

        return JobReport(status="FAILED", message="exit code 1")

    def log(self, job_id: str) -> str:
        return self._log


def test_the_result_is_one_line_of_the_jobs_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from orchestrator.engine import jobs
    from orchestrator.engine.clusters import Cluster

    cluster = Cluster(name="there", jobs_address="http://127.0.0.1:1")
    document = {name: getattr(FOUND, name) for name in Checkup.__dataclass_fields__ if name != "ranks"}
    ranks = [{name: getattr(rank, name) for name in Rank.__dataclass_fields__} for rank in FOUND.ranks]
    line = f"{short_job.MARK}{json.dumps({**document, 'ranks': ranks, 'sum_is_right': True})}"
    monkeypatch.setattr(jobs, "RayJobs", FakeJobs(f"Ray says hello\n{line}\nbye\n"))
    assert ask_checkup.ask_checkup(cluster, tmp_path) == FOUND
    monkeypatch.setattr(jobs, "RayJobs", FakeJobs("Traceback\nImportError: no torch\n"))
    with pytest.raises(
        ClusterError, match=r"ended without a result \(exit code 1\):\nTraceback\nImportError: no torch"
    ):
        ask_checkup.ask_checkup(cluster, tmp_path)


def test_what_a_worker_says_on_purpose_reaches_whoever_waits(monkeypatch: pytest.MonkeyPatch):
    from orchestrator.engine import evaluation, jobs
    from orchestrator.engine.clusters import Cluster

    task = evaluation.EvaluationTask(
        checkpoint="/runs/a/checkpoints/step-00000001.1",
        root="/data",
        split="val",
        crops=None,
        loader=None,
        batch_size=8,
    )
    line = short_job.MARK + json.dumps({"fault": "/data has 9 classes", "kind": "DataError"})
    monkeypatch.setattr(jobs, "RayJobs", FakeJobs(line))
    with pytest.raises(DataError, match="/data has 9 classes"):
        evaluation.evaluate_on(Cluster(name="there", jobs_address="http://127.0.0.1:1"), task)
    with pytest.raises(UsageError, match="run `dnctl eval` on a node, by srun"):
        evaluation.evaluate_on(Cluster(name="slurm", slurm_script=Path("run.sbatch")), task)
