"""What every benchmark prints: one document with the machine, the commit, rows, ratios and their spread."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
_PACKAGES = ("torch", "torchvision", "ray", "timm", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "pillow", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A ratio measured in repeated, interleaved runs: above 1, ours is better."""

    median: float
    low: float
    high: float


def ratio_of_rates(ours: Sequence[float], peers: Sequence[float]) -> Ratio:
    """Our rate over the peer's, each of our runs against the peer's run beside it."""
    ratios = [mine / theirs for mine, theirs in zip(ours, peers, strict=True)]
    return Ratio(median=statistics.median(ratios), low=min(ratios), high=max(ratios))


def ratio_of_costs(ours: Sequence[float], peers: Sequence[float]) -> Ratio:
    """The peer's time or size over ours, each of our runs against the peer's run beside it."""
    return ratio_of_rates(peers, ours)


def document(*, rows: Sequence[Mapping[str, Any]], ratios: Mapping[str, float | Ratio]) -> dict[str, Any]:
    """The one object that a benchmark prints. Ratios measured repeatedly bring their spread."""
    measured = {name: ratio for name, ratio in ratios.items() if isinstance(ratio, Ratio)}
    flat = {name: ratio.median if isinstance(ratio, Ratio) else ratio for name, ratio in ratios.items()}
    return {
        "machine": machine(),
        "commit": commit(),
        "rows": list(rows),
        "ratios": {name: round(ratio, 4) for name, ratio in flat.items()},
        "spread": {name: [round(ratio.low, 4), round(ratio.high, 4)] for name, ratio in measured.items()},
    }


def print_document(printed: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the document as JSON, or for people."""
    if as_json:
        print(json.dumps(printed, indent=2))
        return
    host = printed["machine"]
    print(f"{host['processor']}, {host['cores']} cores, {host['gpu'] or 'no GPU'}; commit {printed['commit']}")
    for row in printed["rows"]:
        print("  " + ", ".join(f"{key} {_shown(value)}" for key, value in row.items()))
    for name, ratio in printed["ratios"].items():
        low_high = printed["spread"].get(name)
        print(f"{name}: {ratio:.3f}" + (f" ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else ""))


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
    }


def commit() -> str | None:
    """The commit that is checked out, marked where files differ from it."""
    return _output_of("git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _output_of(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
