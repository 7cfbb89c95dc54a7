"""Which cluster a command talks to: the one that is named, or one on this machine, started if there is none."""

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.engine import local_cluster
from orchestrator.engine.dashboard import Dashboard, find_token
from orchestrator.engine.profile import LocalProfile, ReachedProfile, SlurmProfile
from orchestrator.engine.profiles import ProfileFile, find_profile, read_profile
from orchestrator.errors import ClusterError, UsageError
from orchestrator.redaction import has_password


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster that takes runs: a Ray cluster by its dashboard, or Slurm by its batch script."""

    name: str
    """What finds it again: an address, a profile's absolute path, or 'local'."""
    jobs_address: str | None = None
    """http(s) URL of Ray's dashboard, which takes jobs; None for Slurm."""
    token_path: Path | None = None
    """Where the token for it lies; None: where Ray itself looks for one."""
    slurm_script: Path | None = None
    """The batch script of a run; None unless this is Slurm."""
    storage: Path | None = None
    """The folder for runs that all nodes see; None: not known."""
    interface: str | None = None
    """The nodes' network interface; None: each finds its own."""

    @property
    def is_local(self) -> bool:
        """Whether it is the one that dnctl keeps on this machine: same code, same files."""
        return self.name == LOCAL

    def dashboard(self, timeout_s: float = 10.0) -> Dashboard:
        """The dashboard of a Ray cluster."""
        assert self.jobs_address is not None
        return Dashboard(address=self.jobs_address, token=find_token(self.token_path), timeout_s=timeout_s)

    def use_token(self) -> None:
        """Let Ray in this process authenticate itself. Must come before ray is imported."""
        if self.token_path is not None:
            os.environ.pop("RAY_AUTH_TOKEN", None)  # it would win
            os.environ.update(local_cluster.token_environment(self.token_path))
        elif find_token(None) is not None:
            os.environ["RAY_AUTH_MODE"] = "token"

    def refuse_other_storage(self, root: Path) -> None:
        """Raise UsageError if runs would be kept where the nodes don't see them."""
        if self.storage is not None and not root.is_relative_to(self.storage.absolute()):
            raise UsageError(
                f"the nodes of {self.name} keep runs in {self.storage}, but here they would be in {root}: "
                f"export DNCTL_STORAGE={self.storage}"
            )


LOCAL = "local"


def named_cluster(name: str | None, *, last: str | None = None) -> Cluster | None:
    """The cluster that --cluster, DNCTL_CLUSTER or RAY_ADDRESS names; None if this machine's own is meant.

    last: the one that is meant if none is named.
    Raises NotFoundError or ProfileError for a profile, ClusterError for an address of another kind.
    """
    name = name or os.environ.get("DNCTL_CLUSTER") or os.environ.get("RAY_ADDRESS") or last
    if not name or name in (LOCAL, "auto"):
        return None
    if has_password(name):
        raise UsageError(
            "--cluster: found a URL with a password, which would be kept with the run; give the address alone, and the "
            "cluster's token in RAY_AUTH_TOKEN_PATH or a profile"
        )
    if name.startswith(("http://", "https://")):
        return Cluster(name=name.rstrip("/"), jobs_address=name.rstrip("/"))
    if "://" in name:
        raise ClusterError(
            f"{name} takes no jobs: give the http:// address of that cluster's dashboard, port 8265 mostly"
        )
    return cluster_of(read_profile(find_profile(name)))


def profile_of(name: str | None) -> ProfileFile | None:
    """The profile whose machines are to be brought up or down; None if this machine's own cluster is meant.

    Raises NotFoundError, ProfileError, or UsageError for an address, which says nothing of machines.
    """
    name = name or os.environ.get("DNCTL_CLUSTER")
    if not name or name == LOCAL:
        return None
    if "://" in name:
        raise UsageError(f"{name} is an address: whoever keeps that cluster brings it up and down")
    file = read_profile(find_profile(name))
    return None if isinstance(file.profile, LocalProfile) else file


def cluster_of(file: ProfileFile) -> Cluster | None:
    """The cluster that a profile describes; None if that is this machine's own."""
    profile = file.profile
    storage = Path(profile.storage) if profile.storage is not None else None
    match profile:
        case LocalProfile():
            return None
        case ReachedProfile():
            return Cluster(
                name=str(file.path),
                jobs_address=profile.address,
                token_path=Path(profile.token) if profile.token is not None else None,
                storage=storage,
                interface=profile.interface,
            )
        case SlurmProfile():
            return Cluster(
                name=str(file.path),
                slurm_script=file.beside(profile.script),
                storage=storage,
                interface=profile.interface,
            )
    raise AssertionError(profile)


def running_local_cluster() -> Cluster | None:
    """This machine's own cluster, if it is up."""
    running = local_cluster.find()
    return None if running is None else _local(running)


def started_local_cluster() -> Cluster:
    """This machine's own cluster, started if need be; takes some seconds then. Raises ClusterError."""
    return _local(local_cluster.find_or_start())


def _local(running: local_cluster.LocalCluster) -> Cluster:
    return Cluster(name=LOCAL, jobs_address=running.dashboard_url, token_path=running.token_path)
