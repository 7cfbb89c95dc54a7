"""Bringing a cluster's machines up and down with the tool that its profile is for."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from orchestrator.engine.profile import (
    AddressProfile,
    KubeRayProfile,
    LauncherProfile,
    ReachedProfile,
    SlurmProfile,
)
from orchestrator.engine.profiles import ProfileFile
from orchestrator.engine.slurm import MARK
from orchestrator.engine.tools import ask_tool, find_tool, run_tool
from orchestrator.errors import ClusterError, UsageError


def bring_up(file: ProfileFile, *, ask_first: bool) -> Iterator[str]:
    """Bring the machines up; the tool talks to the person itself. Yields what the person should know then.

    ask_first: let the tool ask before it starts machines, if it does.
    """
    match file.profile:
        case LauncherProfile() as profile:
            config = file.beside(profile.config)
            _call_launcher("up", config, profile, ask_first=ask_first)
            yield from _tunnel(profile, f"ray dashboard --port {_port(profile)} {config}")
        case KubeRayProfile() as profile:
            kubectl = find_tool("kubectl", needed_for="it brings up this cluster")
            for manifest in profile.manifests:
                run_tool([kubectl, "apply", "--filename", str(file.beside(manifest))])
            yield from _tunnel(profile, f"kubectl port-forward service/{profile.service} {_port(profile)}:8265")
        case SlurmProfile():
            version = ask_tool([find_tool("sinfo", needed_for="this cluster is Slurm's"), "--version"]).strip()
            yield f"Slurm answers ({version}). It gives each run nodes of its own, so there is nothing to bring up:"
            yield f"  dnctl launch RECIPE --cluster {file.name}"
        case AddressProfile() as profile:
            raise UsageError(
                f"{profile.address} is brought up by whoever keeps it; see it: dnctl cluster status {file.name}"
            )
        case profile:
            raise AssertionError(profile)


def take_down(file: ProfileFile, *, ask_first: bool) -> Iterator[str]:
    """End what `bring_up` brought up; for Slurm, all runs that are in its queue. Yields what was done."""
    match file.profile:
        case LauncherProfile() as profile:
            _call_launcher("down", file.beside(profile.config), profile, ask_first=ask_first)
        case KubeRayProfile() as profile:
            kubectl = find_tool("kubectl", needed_for="it brought up this cluster")
            for manifest in reversed(profile.manifests):
                # A volume holds the runs: what ends a cluster must not delete them.
                names = ask_tool(
                    [kubectl, "get", "--filename", str(file.beside(manifest)), "--ignore-not-found", "-o", "name"]
                )
                doomed = [name for name in names.split() if not name.startswith(_KEPT)]
                if doomed:
                    run_tool([kubectl, "delete", *doomed])
            yield "The volume with the runs is kept; `kubectl delete pvc` deletes it, for good."
        case SlurmProfile():
            squeue = find_tool("squeue", needed_for="this cluster is Slurm's")
            lines = ask_tool([squeue, "--me", "--noheader", "--format=%A|%k"]).splitlines()
            jobs = [line.partition("|")[0] for line in lines if line.partition("|")[2] == MARK]
            if jobs:
                ask_tool([find_tool("scancel", needed_for="this cluster is Slurm's"), "--full", *jobs])
            yield f"{len(jobs)} run{'' if len(jobs) == 1 else 's'} cancelled in Slurm."
        case AddressProfile() as profile:
            raise UsageError(f"{profile.address} is taken down by whoever keeps it")
        case profile:
            raise AssertionError(profile)


_KEPT = ("persistentvolumeclaim/", "namespace/")


def _tunnel(profile: ReachedProfile, command: str) -> Iterator[str]:
    yield f"It takes runs at {profile.address} while this runs in another terminal:"
    yield f"  {command}"


def _port(profile: ReachedProfile) -> str:
    return profile.address.rpartition(":")[2]


def _call_launcher(command: str, config: Path, profile: LauncherProfile, *, ask_first: bool) -> None:
    ray = find_tool("ray", needed_for="its cluster launcher brings up this cluster")
    # In the folder of the file, from which its paths are seen.
    run_tool([ray, command, str(config), *_yes(ask_first)], environment=_ray_environment(profile), folder=config.parent)


def _yes(ask_first: bool) -> list[str]:
    if ask_first and not sys.stdin.isatty():
        raise UsageError("machines cost money, and nobody is here to be asked: add --yes")
    return [] if ask_first else ["--yes"]


def _ray_environment(profile: ReachedProfile) -> dict[str, str]:
    """Ray's launcher talks to the cluster that it made, so it needs the token, too."""
    token = Path(profile.token) if profile.token is not None else Path.home() / ".ray" / "auth_token"
    if not token.is_file():
        raise ClusterError(
            f"the cluster needs a token, and there is none in {token}: make one with `ray get-auth-token --generate` "
            "(Ray keeps it in ~/.ray/auth_token)"
        )
    return {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
