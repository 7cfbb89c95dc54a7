"""The dashboard of a Ray cluster over HTTP: asked without importing Ray, answered for people if it can't be asked."""

import json
import os
import platform
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.errors import ClusterError, RefusedError

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a caller shows to a cluster."""

    text: str
    source: str
    """Where it was found, for messages."""

    def __repr__(self) -> str:
        return f"Token(source={self.source!r})"  # the text must never reach a log


def find_token(path: Path | None) -> Token | None:
    """The token in a file, or where Ray looks for one; None if there is none.

    Raises ClusterError if a file that is named holds none.
    """
    if path is not None:
        return _read_token(path)
    if text := os.environ.get("RAY_AUTH_TOKEN"):
        return Token(text=text.strip(), source="RAY_AUTH_TOKEN")
    if named := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return _read_token(Path(named))
    usual = Path.home() / ".ray" / "auth_token"
    return _read_token(usual) if usual.is_file() else None


def _read_token(path: Path) -> Token:
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise ClusterError(
            f"the cluster's token can't be read: {path}: {error.strerror}; copy it there from the machine that the "
            "cluster was started on, for your eyes only (mode 600)"
        ) from None
    if not text:
        raise ClusterError(f"the cluster's token can't be read: {path} is empty")
    return Token(text=text, source=str(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What a cluster runs on."""

    ray: str
    python: str

    def __str__(self) -> str:
        return f"Ray {self.ray} and Python {self.python}"


def versions_here() -> Versions:
    """What this machine has."""
    return Versions(ray=version("ray"), python=platform.python_version())


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A cluster's dashboard."""

    address: str
    token: Token | None
    timeout_s: float = TIMEOUT_S

    def get(self, path: str) -> Any:
        """What it answers to GET. Raises ClusterError if it doesn't, refuses, or isn't Ray's."""
        headers = {"Authorization": f"Bearer {self.token.text}"} if self.token else {}
        request = urllib.request.Request(self.address + path, headers=headers)  # noqa: S310 — http(s), see profile.py
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise self._refusal(error.code) from None
        except ValueError:
            raise ClusterError(f"what answers at {self.address} is no Ray dashboard") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ClusterError(
                f"no cluster answers at {self.address}: {getattr(reason, 'strerror', None) or reason}; check that "
                "it is up, that this is the address of its dashboard and, if that is a tunnel's near end, that the "
                "tunnel is open; or leave out --cluster and RAY_ADDRESS to use this machine"
            ) from None

    def _refusal(self, code: int) -> ClusterError:
        if code not in (401, 403):
            return ClusterError(f"what answers at {self.address} is no Ray dashboard that takes jobs (HTTP {code})")
        if self.token is None:
            return RefusedError(
                f"the cluster at {self.address} wants its token, and there is none here: name the file that holds it "
                "as `token` in a profile, or in RAY_AUTH_TOKEN_PATH, or put it into ~/.ray/auth_token"
            )
        return RefusedError(
            f"the cluster at {self.address} refuses the token of {self.token.source}: it is another cluster's, or the "
            "cluster was started anew; copy its token from the machine that it was started on"
        )

    def versions(self) -> Versions:
        """What the cluster runs on."""
        answer = self.get("/api/v0/cluster_metadata")
        try:
            return Versions(ray=answer["data"]["rayVersion"], python=answer["data"]["pythonVersion"])
        except (KeyError, TypeError):
            raise ClusterError(f"what answers at {self.address} is no Ray dashboard") from None

    def refuse_other_versions(self) -> None:
        """Raise ClusterError if the code of this machine isn't meant for the versions on the nodes."""
        here, there = versions_here(), self.versions()
        if _release(here.ray) != _release(there.ray) or _release(here.python) != _release(there.python):
            raise ClusterError(
                f"the cluster at {self.address} has {there}, this machine has {here}: the code is shipped from here, "
                "so the nodes must have what it was made for; install requirements.lock on the nodes (or use the "
                "container image) and start the cluster anew, or use dnctl from a machine with the nodes' versions"
            )


def _release(text: str) -> tuple[str, ...]:
    """'3.11' of '3.11.7': what doesn't differ within it works together."""
    return tuple(text.split(".")[:2])
