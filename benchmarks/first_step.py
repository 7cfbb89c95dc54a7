"""From typing `dnctl launch` to the first step done, against `ray job submit` of a minimal Ray Train script.

Both train the network of overhead.py's starts, with the same plan on the same images. Cold: no cluster is up, and the
peer types `ray start --head`, too. Warm: each on its own cluster, which is up. The run says where our time went.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import monotonic, sleep, time

from common import Ratio, ratio_of_costs
from overhead import BARE_RAY, SMALL_IMAGE_SIZE, SMALL_MODEL, SMALL_NUM_STEPS, Bench, bench

from orchestrator.engine.local_head import free_ports
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.segments import read_segments

RAY = str(Path(sys.executable).with_name("ray"))
UP_TIMEOUT_S = 120.0
BATCH = 16


@contextmanager
def ray_head(place: Bench) -> Iterator[str]:
    """`ray start --head`, as it is typed; yields the dashboard's address when it answers, and ends it afterwards."""
    port, dashboard, client = free_ports(3)
    command = [RAY, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    options = [f"--ray-client-server-port={client}", f"--temp-dir={place.folder}/ray", "--disable-usage-stats"]
    head = subprocess.Popen(
        [*command, *options], env=_peers_environment(place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(f"{address}/api/version")
        yield address
    finally:
        head.terminate()
        head.wait(60)


def _peers_environment(place: Bench) -> dict[str, str]:
    """As on a machine where nobody has asked Ray for a token yet: it takes one by itself where it finds one."""
    return {**place.environment, "RAY_AUTH_MODE": "disabled"}


def _wait_for(url: str) -> None:
    deadline = monotonic() + UP_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (OSError, urllib.error.URLError):
            if monotonic() > deadline:
                raise
            sleep(0.05)


def submitted(place: Bench, address: str, typed_at: float) -> float:
    """Seconds from typing to the first step of the script, as a job."""
    times = place.folder / f"job-{time()}.json"
    script = [sys.executable, BARE_RAY, str(place.write_plan()), place.images, str(times), "--address", "auto"]
    command = [RAY, "job", "submit", "--address", address, "--", *script]
    subprocess.run(
        command, env=_peers_environment(place), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return float(json.loads(times.read_text())["1"]) - typed_at


def launched(place: Bench) -> tuple[float, dict[str, float]]:
    """Seconds from typing to the first step of a launch, and what they went into."""
    times = place.dnctl()
    run = RunDirectory(place.folder / "runs" / place.started[-1])
    attempt = run.attempt(1)
    training_at = next(row["time"] for row in read_segments(attempt.path, "events") if "training_" in row["event"])
    moments = [
        times[0],
        run.read_state().created_at,
        files.read_json(attempt.owner)["claimed_at"],
        files.read_json(attempt.worker_nodes)["began_at"],
        training_at,
        times[1],
    ]
    phases = ("command and plan", "cluster and job", "driver and workers", "network and data", "first step")
    return times[1] - times[0], {
        phase: end - begin for phase, begin, end in zip(phases, moments, moments[1:], strict=False)
    }


def compare_first_steps(repeats: int) -> tuple[dict[str, Ratio], list[dict[str, object]]]:
    """Ratios by state, and rows of seconds and of what ours went into."""
    ours: dict[str, list[float]] = {"cold": [], "warm": []}
    peers: dict[str, list[float]] = {"cold": [], "warm": []}
    phases: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    with bench(
        model=SMALL_MODEL,
        image_size=SMALL_IMAGE_SIZE,
        num_images=BATCH * SMALL_NUM_STEPS,
        batch=BATCH,
        workers=2,
        log_every=1,
    ) as place:
        place.write_plan()
        for _ in range(repeats):
            typed_at = time()
            with ray_head(place) as address:
                peers["cold"].append(submitted(place, address, typed_at))
                peers["warm"].append(submitted(place, address, time()))
            for state in ("cold", "warm"):
                seconds, parts = launched(place)
                ours[state].append(seconds)
                phases[state].append(parts)
            place.end_cluster()
    rows = [row for state in ours for row in _rows(state, ours[state], peers[state], phases[state])]
    return {f"first_step_{state}/ray_job_submit": ratio_of_costs(ours[state], peers[state]) for state in ours}, rows


def _rows(
    state: str, ours: Sequence[float], peers: Sequence[float], phases: Sequence[dict[str, float]]
) -> Iterator[dict[str, object]]:
    yield {
        "what": f"first step, {state}, s",
        "dnctl": median(ours),
        "ray job submit": median(peers),
        "rounds": len(ours),
    }
    parts = {phase: median(each[phase] for each in phases) for phase in phases[0]}
    yield {"what": f"of dnctl's, {state}, s", **parts}
