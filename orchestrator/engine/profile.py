"""The schema of a cluster profile: one of cluster/*.yaml, which a person copies and edits.

`kind` says what brings the machines up and so which keys there are. What Ray, Slurm or Kubernetes has a format for is
in a file of that format, which the profile names; the profile itself says what only dnctl needs to know.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from orchestrator.recipe.fields import PathText, Text
from orchestrator.recipe.schema import Section


def _check_address(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+/?", text):
        raise ValueError(f"found {text!r}; allowed: the http:// address of a Ray dashboard, without a path")
    return text.rstrip("/")


Address = Annotated[str, AfterValidator(_check_address)]


class Profile(Section):
    """What all profiles say."""

    storage: PathText | None = None
    """The folder for runs that every node and this machine see under this path; null: not checked."""
    interface: Text | None = None
    """Network interface between the nodes, for gloo and NCCL; null: the one that has a node's address in Ray."""


class LocalProfile(Profile):
    """The cluster that dnctl keeps on this machine."""

    kind: Literal["local"]
    """What brings the machines up."""


class ReachedProfile(Profile):
    """A Ray cluster that takes runs at the address of its dashboard."""

    address: Address = Field(examples=["http://127.0.0.1:8265"])
    """The http:// address of Ray's dashboard, as seen from this machine; of a tunnel's near end, if there is one."""
    token: PathText | None = None
    """File with the cluster's token; null: where Ray looks: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token."""


class AddressProfile(ReachedProfile):
    """A cluster that somebody else brings up."""

    kind: Literal["address"]
    """What brings the machines up."""


class LauncherProfile(ReachedProfile):
    """A cluster of Ray's cluster launcher, `ray up`: machines reached by ssh, AWS, Google Cloud."""

    kind: Literal["ray-up"]
    """What brings the machines up."""
    config: Text = Field(examples=["ssh/ray.yaml"])
    """The file for `ray up`, seen from the folder of the profile."""


class KubeRayProfile(ReachedProfile):
    """A RayCluster on Kubernetes, under the KubeRay operator."""

    kind: Literal["kuberay"]
    """What brings the machines up."""
    manifests: tuple[Text, ...] = Field(min_length=1, examples=[["kuberay/raycluster.yaml"]])
    """Files for `kubectl apply`, in this order, seen from the folder of the profile."""
    service: Text = Field(examples=["dnctl-head-svc"])
    """The service of Ray's head, to which a tunnel leads."""


class SlurmProfile(Profile):
    """Slurm: each run is a job of its own, which starts Ray over its nodes."""

    kind: Literal["slurm"]
    """What brings the machines up."""
    script: Text = Field(examples=["slurm/run.sbatch"])
    """The batch script of a run, seen from the folder of the profile."""


KINDS: dict[str, type[Profile]] = {
    "local": LocalProfile,
    "address": AddressProfile,
    "ray-up": LauncherProfile,
    "slurm": SlurmProfile,
    "kuberay": KubeRayProfile,
}
