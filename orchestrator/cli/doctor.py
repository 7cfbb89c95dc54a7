"""`dnctl doctor`: what this machine has, and what to do about what is missing."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from orchestrator.cli.launch import ClusterOption
from orchestrator.cli.output import JsonOption, console, human_bytes, print_json, stderr
from orchestrator.errors import DnctlError
from orchestrator.run.catalogue import storage_root

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.engine.ask_checkup import Checkup

Verdict = Literal["ok", "note", "fault"]
_STYLES: dict[Verdict, str] = {"ok": "green", "note": "yellow", "fault": "bold red"}
MIN_SHARED_MEMORY_BYTES = 1 << 30
MIN_FREE_BYTES = 5 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    subject: str
    verdict: Verdict
    """ok; note: works, slower or without something; fault: runs will fail."""
    found: str
    advice: str = ""


def doctor(cluster: ClusterOption = None, json_output: JsonOption = False) -> None:
    """What this machine has, or the nodes of a cluster have in common, and what to do about what is missing.

    Here: GPUs, driver, packages, storage and shared memory. With --cluster, by a short job on every node: GPUs, shared
    storage, clocks, and a sum over the nodes by NCCL, or by gloo where there are no GPUs to spare. Exits with 2 if a
    run would fail.
    """
    findings = list(examine() if cluster is None else examine_cluster(cluster))
    if json_output:
        print_json([asdict(finding) for finding in findings])
    else:
        console().print(_table(findings))
    if any(finding.verdict == "fault" for finding in findings):
        raise typer.Exit(2)


def examine_cluster(name: str) -> Iterator[Finding]:
    """All findings on a cluster. Raises ClusterError, or NotFoundError for a profile that isn't there."""
    from orchestrator.engine.ask_checkup import ask_checkup
    from orchestrator.engine.clusters import named_cluster, started_local_cluster

    target = named_cluster(name)
    if target is not None:
        target.refuse_other_storage(storage_root())
    with stderr().status("looking at the nodes"):
        found = ask_checkup(target or started_local_cluster(), storage_root())
    for rank in found.ranks:
        gpus = f"{rank.gpus} GPU{'' if rank.gpus == 1 else 's'}" if rank.gpus else "no GPU"
        over = f", over {rank.interface}" if rank.interface else ""
        yield Finding(subject="node", verdict="ok", found=f"{rank.host}: {gpus}{over}")
    yield from _gpus_of(found)
    yield from _sum_of(found)
    yield _clocks_of(found)
    if found.faults:
        for fault in found.faults:
            yield Finding(subject="nodes", verdict="fault", found=fault)
    else:
        yield Finding(subject="storage", verdict="ok", found=f"{storage_root()}: seen and written by all of them")


def _gpus_of(found: "Checkup") -> Iterator[Finding]:
    shown = sum(rank.gpus for rank in found.ranks)
    if len(found.ranks) < found.num_nodes:
        left_out = f"{found.num_nodes - len(found.ranks)} of {found.num_nodes} were left out"
        yield Finding(subject="nodes", verdict="note", found=f"{left_out}: busy, or nothing to compute with")
    if len(found.ranks) == found.num_nodes and shown < found.gpus_in_ray:
        yield Finding(
            subject="GPUs",
            verdict="fault",
            found=f"Ray counts {found.gpus_in_ray}, the driver shows {shown}",
            advice="run nvidia-smi on the nodes; restart one that has lost a GPU",
        )


def _sum_of(found: "Checkup") -> Iterator[Finding]:
    if len(found.ranks) == 1:
        yield Finding(subject="network", verdict="ok", found="one node: nothing goes over a network")
        return
    rate = found.sum_bytes / found.sum_s
    said = f"a sum of {human_bytes(found.sum_bytes)} over {len(found.ranks)} nodes in {1000 * found.sum_s:.3g} ms"
    yield Finding(
        subject=found.backend,
        verdict="ok" if found.backend == "nccl" else "note",
        found=f"{said}, {human_bytes(rate)}/s",
        advice="" if found.backend == "nccl" else "gloo stood in for NCCL: there is no GPU to spare on every node",
    )


def _clocks_of(found: "Checkup") -> Finding:
    from orchestrator.run.lease import LARGEST_CLOCK_DIFFERENCE_S

    said = f"they differ by {1000 * found.clock_difference_s:.3g} ms"
    if found.clock_difference_s <= LARGEST_CLOCK_DIFFERENCE_S:
        return Finding(subject="clocks", verdict="ok", found=said)
    advice = "set them by NTP (chrony): a lease is good for ten seconds, and living runs would read LOST"
    return Finding(subject="clocks", verdict="fault", found=said, advice=advice)


def _table(findings: list[Finding]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        text = finding.found + (f"\n→ {finding.advice}" if finding.advice else "")
        table.add_row(Text(finding.verdict, style=_STYLES[finding.verdict]), finding.subject, Text(text))
    return table


def examine() -> Iterator[Finding]:
    """All findings on this machine."""
    yield _python()
    yield _cores_and_memory()
    yield from _gpus()
    yield from _packages()
    yield _shared_memory()
    yield _storage()
    yield _cluster()
    yield from _cloud()


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.platform(terse=True)}"
    return Finding(subject="Python", verdict="ok", found=found)


def _cores_and_memory() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding(subject="machine", verdict="ok", found=f"{cores} CPU cores, {human_bytes(memory)} of memory")


def _gpus() -> Iterator[Finding]:
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        yield Finding(
            subject="GPUs",
            verdict="note",
            found="none: nvidia-smi is not there",
            advice="training runs on the CPU, slowly; for GPUs install NVIDIA's driver (580 or newer for CUDA 13)",
        )
        return
    query = [nvidia_smi, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
        said, works = (answer.stdout + answer.stderr).strip(), answer.returncode == 0
    except (OSError, subprocess.TimeoutExpired) as error:
        said, works = str(error), False
    if not works:
        yield Finding(
            subject="GPUs",
            verdict="note",
            found=said.partition("\n")[0] or "nvidia-smi fails without a word",
            advice="the driver doesn't see a GPU; training runs on the CPU until it does",
        )
        return
    for line in said.splitlines():
        name, driver, memory = (part.strip() for part in line.split(","))
        yield Finding(subject="GPU", verdict="ok", found=f"{name}, {memory}, driver {driver}")


def _packages() -> Iterator[Finding]:
    from orchestrator.plan.cluster import installed_loader
    from orchestrator.plan.versions import installed_versions

    versions = installed_versions()
    for package in ("torch", "torchvision", "timm", "ray"):
        if package in versions:
            yield Finding(subject=package, verdict="ok", found=versions[package])
        else:
            yield Finding(
                subject=package,
                verdict="fault",
                found="not installed",
                advice="install dnctl's dependencies: make setup",
            )
    dali = versions.get("nvidia-dali-cuda130") or versions.get("nvidia-dali-cuda120")
    if dali and installed_loader() == "dali":
        yield Finding(subject="DALI", verdict="ok", found=dali)
    else:
        yield Finding(
            subject="DALI",
            verdict="note",
            found="not installed",
            advice="images are read by the slower PyTorch loader; on Linux: pip install 'dnctl[cuda130]'",
        )


def _shared_memory() -> Finding:
    path = Path("/dev/shm")  # noqa: S108 — where Ray and DDP put shared memory, not a file of ours
    if not path.is_dir():
        return Finding(subject="shared memory", verdict="note", found="there is no /dev/shm", advice="Ray uses /tmp")
    free = shutil.disk_usage(path).free
    if free < MIN_SHARED_MEMORY_BYTES:
        return Finding(
            subject="shared memory",
            verdict="note",
            found=f"{human_bytes(free)} free in /dev/shm",
            advice="Ray falls back to /tmp, slowly; in a container give --shm-size=2g or more",
        )
    return Finding(subject="shared memory", verdict="ok", found=f"{human_bytes(free)} free in /dev/shm")


def _storage() -> Finding:
    try:
        root = storage_root()
    except DnctlError as error:
        return Finding(subject="storage", verdict="fault", found=str(error), advice="set DNCTL_STORAGE to a path")
    try:
        place = next(parent for parent in (root, *root.parents) if parent.exists())
        with tempfile.NamedTemporaryFile(dir=place, prefix=".dnctl-doctor-"):
            pass
    except OSError as error:
        return Finding(
            subject="storage",
            verdict="fault",
            found=f"{root} can't be written: {error.strerror}",
            advice="change its owner or mode, or set DNCTL_STORAGE to another directory",
        )
    free = shutil.disk_usage(place).free
    if free < MIN_FREE_BYTES:
        return Finding(
            subject="storage",
            verdict="note",
            found=f"{root}: {human_bytes(free)} free",
            advice="a run of a large network keeps about 1 GiB of checkpoints; free some space",
        )
    return Finding(subject="storage", verdict="ok", found=f"{root}: writable, {human_bytes(free)} free")


def _cluster() -> Finding:
    from orchestrator.engine import local_cluster

    cluster = local_cluster.find()
    if cluster is None:
        return Finding(subject="cluster", verdict="ok", found="none on this machine; launch starts one when needed")
    return Finding(subject="cluster", verdict="ok", found=f"up on this machine, dashboard {cluster.dashboard_url}")


def _cloud() -> Iterator[Finding]:
    """Whether a run here would hear of it that the machine is taken away; nothing where that can't be announced."""
    from orchestrator.engine.notices.clouds import find_cloud

    try:
        cloud = find_cloud(os.environ)
        if cloud is None:
            return
        notice = cloud.look()
    except DnctlError as error:
        advice = "runs on this machine won't hear of it before it is taken away"
        yield Finding(subject="cloud", verdict="note", found=str(error), advice=advice)
        return
    said = f"announced: {notice}" if notice is not None else "it answers, and has announced nothing"
    yield Finding(
        subject="cloud", verdict="note" if notice is not None else "ok", found=f"a machine of {cloud.name}: {said}"
    )
