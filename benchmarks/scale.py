"""What starting a rank on 1,281,167 images costs beside what any process costs: seconds and megabytes.

    python benchmarks/scale.py [--json] [--repeats 3]

A manifest of made-up rows is opened in a new process, and the first batch that a run would read is worked out: the
order of the epoch, paths, crops and colours. Once at the epoch's first step and once at its last: the ratio says what
resuming there costs against beginning.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from common import document, print_document, ratio_of_costs

from orchestrator.data.color import ColorTransform
from orchestrator.data.manifest import Rows, open_manifest, write_manifest
from orchestrator.data.order import epoch_order
from orchestrator.data.transforms import TrainTransform

NUM_IMAGES, NUM_CLASSES, BATCH_SIZE = 1_281_167, 1000, 64
POSITIONS = {"first": 0, "last": NUM_IMAGES // BATCH_SIZE - 1}


def write_rows(path: Path) -> None:
    """Write the manifest of images that aren't there."""
    labels = np.arange(NUM_IMAGES, dtype=np.int64) * NUM_CLASSES // NUM_IMAGES
    rows = Rows(
        relative_paths=[f"n{label:08d}/n{label:08d}_{row}.JPEG" for row, label in enumerate(labels.tolist())],
        labels=labels,
        widths=np.full(NUM_IMAGES, 500),
        heights=np.full(NUM_IMAGES, 375),
        num_bytes=np.full(NUM_IMAGES, 110_000),
    )
    classes = [f"n{label:08d}" for label in range(NUM_CLASSES)]
    write_manifest(path, rows, root=Path("/"), split="train", classes=classes, left_out=[], full_decode=False, stamp="")


def start(path: Path, step: int) -> dict[str, float]:
    """Open the manifest and work out a step's batch, in this process; what that took."""
    before = _resident_mb()
    began_at = perf_counter()
    manifest = open_manifest(path)
    opened_at = perf_counter()
    order = epoch_order(seed=0, epoch=3, num_samples=manifest.num_samples)
    ordered_at = perf_counter()
    transform = TrainTransform(
        image_size=224, crop="torch", interpolation="bicubic", color=ColorTransform(jitter=0.4, lighting=0.1)
    )
    indices = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
    manifest.paths(indices)
    transform.geometry(manifest, indices, seed=0, epoch=3)
    transform.color_maps(indices, seed=0, epoch=3)
    done_at = perf_counter()
    return {
        "open_s": opened_at - began_at,
        "order_s": ordered_at - opened_at,
        "batch_s": done_at - ordered_at,
        "total_s": done_at - began_at,
        "memory_mb": _resident_mb() - before,
    }


def _resident_mb() -> float:
    """The most memory that this process has held, pages of mapped files included, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved rounds")
    parser.add_argument("--start", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start is not None:
        print(json.dumps(start(Path(arguments.start[0]), int(arguments.start[1]))))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in POSITIONS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.arrow")
        write_rows(path)
        for _ in range(arguments.repeats):
            for name, step in POSITIONS.items():
                command = [sys.executable, __file__, "--start", str(path), str(step)]
                found[name].append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    rows: list[dict[str, Any]] = [{"step": name} | measured for name, all_of in found.items() for measured in all_of]
    first, last = ([measured["total_s"] for measured in found[name]] for name in POSITIONS)
    ratios = {"last_step/first_step": ratio_of_costs(last, first)}
    print_document(document(rows=rows, ratios=ratios), as_json=arguments.json)


if __name__ == "__main__":
    main()
