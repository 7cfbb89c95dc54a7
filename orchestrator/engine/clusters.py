"""Which Ray cluster a command talks to: the one that is named, or one on this machine, started if there is none."""

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.engine import local_cluster
from orchestrator.errors import ClusterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster that takes jobs."""

    jobs_address: str
    """http(s) URL of Ray's dashboard, which takes jobs."""
    token_path: Path | None
    """Where the token for it lies; None: whatever Ray's own environment variables say."""
    is_local: bool
    """Whether it is the one that dnctl keeps on this machine: same code, same files."""

    def use_token(self) -> None:
        """Let Ray in this process authenticate itself. Must come before ray is imported."""
        if self.token_path is not None:
            os.environ.update(local_cluster.token_environment(self.token_path))


def named_cluster(name: str | None) -> Cluster | None:
    """The cluster that --cluster, DNCTL_CLUSTER or RAY_ADDRESS names; None if this machine's own is meant."""
    address = name or os.environ.get("DNCTL_CLUSTER") or os.environ.get("RAY_ADDRESS")
    if not address or address in ("local", "auto"):
        return None
    if not address.startswith(("http://", "https://")):
        raise ClusterError(
            f"{address!r} is no cluster: give the http:// address of its dashboard (Ray prints it when the head "
            "starts; port 8265 unless set otherwise), or `local`"
        )
    return Cluster(jobs_address=address, token_path=None, is_local=False)


def running_local_cluster() -> Cluster | None:
    """This machine's own cluster, if it is up."""
    running = local_cluster.find()
    if running is None:
        return None
    return Cluster(jobs_address=running.dashboard_url, token_path=running.token_path, is_local=True)


def started_local_cluster() -> Cluster:
    """This machine's own cluster, started if need be; takes some seconds then. Raises ClusterError."""
    running = local_cluster.find() or local_cluster.start()
    return Cluster(jobs_address=running.dashboard_url, token_path=running.token_path, is_local=True)
