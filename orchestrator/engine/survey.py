"""Which profiles there are, and which of their clusters answer at this moment."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.engine import local_cluster
from orchestrator.engine.clusters import Cluster, cluster_of
from orchestrator.engine.profiles import profile_files, read_profile
from orchestrator.errors import ClusterError, ProfileError, RefusedError

TIMEOUT_S = 3.0

Verdict = Literal["up", "down", "refuses", "faulty"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One profile."""

    name: str
    path: str
    kind: str | None
    """None if the profile has faults."""
    state: Verdict
    """refuses: the cluster is there, but not for this token; faulty: the profile is."""
    where: str
    """Its address, or what is wrong."""


def survey() -> list[Entry]:
    """All profiles, each cluster asked at the same time whether it is there."""
    paths = profile_files()
    with ThreadPoolExecutor(max(1, len(paths))) as pool:
        return list(pool.map(_look, paths))


def _look(path: Path) -> Entry:
    try:
        file = read_profile(path)
    except ProfileError as error:
        return Entry(name=path.stem, path=str(path), kind=None, state="faulty", where=str(error))
    state, where = _ask(cluster_of(file))
    return Entry(name=file.name, path=str(path), kind=file.profile.model_dump()["kind"], state=state, where=where)


def _ask(cluster: Cluster | None) -> tuple[Verdict, str]:
    if cluster is None:
        running = local_cluster.find()
        return ("up", running.dashboard_url) if running is not None else ("down", "this machine")
    if cluster.jobs_address is None:
        if shutil.which("sinfo") is None:
            return "down", "Slurm's commands aren't on this machine"
        return "up", "Slurm's commands are here"
    if cluster.token_path is not None and not cluster.token_path.is_file():
        return "down", f"{cluster.jobs_address}, and no token in {cluster.token_path}"
    try:
        cluster.dashboard(TIMEOUT_S).versions()
    except RefusedError as error:
        return "refuses", str(error)
    except ClusterError:
        return "down", cluster.jobs_address
    return "up", cluster.jobs_address
