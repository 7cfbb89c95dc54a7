"""Which dense block a run uses: `model.block: auto` is decided here, by what was measured (docs/performance.md).

The fused block is the faster one on CPUs, and for networks that start as ImageNet's do in 16 bits on GPUs of the kind
that it was measured on; both take a compiler on the workers.
"""

from collections.abc import Mapping
from typing import Final, Literal

from orchestrator.plan.architecture import DenseNetArchitecture
from orchestrator.plan.plan import Block, Precision
from orchestrator.plan.versions import COMPILER

FUSED_GPUS: Final = ("H100", "H200")
"""GPUs where the fused block is known to be faster: measured on an H200 in bf16; an H100 is the same processor with
slower memory, and fp16 the same work. In fp32 it was never held against the reference."""


def choose_block(
    asked: Literal["auto", "reference", "fused"],
    architecture: object,
    *,
    device: Literal["cpu", "cuda"],
    gpu_type: str | None,
    precision: Precision,
    versions: Mapping[str, str],
) -> Block:
    """The block of a network of that architecture on such a device, where those versions are installed.

    gpu_type: as `ClusterShape` has it.
    """
    if asked != "auto":
        return asked
    if not isinstance(architecture, DenseNetArchitecture) or COMPILER not in versions:
        return "reference"
    if device == "cpu":
        return "fused"
    was_measured = precision != "fp32" and any(known in (gpu_type or "") for known in FUSED_GPUS)
    return "fused" if was_measured and architecture.stem == "imagenet" else "reference"


def missing_compiler(asked: str, *, versions: Mapping[str, str]) -> str | None:
    """What is wrong with asking for the fused block there, or None."""
    if asked != "fused" or COMPILER in versions:
        return None
    return (
        "the fused block is compiled where it runs, and there is no C++ compiler here: install g++, name another one "
        "in the environment variable CXX, or set it to auto or reference"
    )
