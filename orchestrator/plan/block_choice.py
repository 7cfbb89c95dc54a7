"""Which dense block a run uses: `model.block: auto` is decided here, by what was measured (docs/performance.md).

On CPUs the fused block is the faster one for networks that start as ImageNet's do; it needs a C++ compiler on the
workers. For CIFAR's small maps the reference is. On GPUs neither has been measured against the other yet.
"""

from collections.abc import Mapping
from typing import Literal

from orchestrator.plan.architecture import DenseNetArchitecture
from orchestrator.plan.plan import Block
from orchestrator.plan.versions import COMPILER


def choose_block(
    asked: Literal["auto", "reference", "fused"],
    architecture: object,
    *,
    device: Literal["cpu", "cuda"],
    versions: Mapping[str, str],
) -> Block:
    """The block of a network of that architecture on such a device, where those versions are installed."""
    if asked != "auto":
        return asked
    if not isinstance(architecture, DenseNetArchitecture) or architecture.stem != "imagenet":
        return "reference"
    return "fused" if device == "cpu" and COMPILER in versions else "reference"


def missing_compiler(asked: str, *, device: str, versions: Mapping[str, str]) -> str | None:
    """What is wrong with asking for the fused block there, or None."""
    if asked != "fused" or device != "cpu" or COMPILER in versions:
        return None
    return (
        "the fused block is compiled on CPUs, and there is no C++ compiler here: install g++, name another one in the "
        "environment variable CXX, or set it to auto or reference"
    )
