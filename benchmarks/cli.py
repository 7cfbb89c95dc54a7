"""How fast does the command line start? Against `python -c "import typer, rich"`, which any such command line pays.

    python benchmarks/cli.py [--json] [--repeats 15] [--runs 1000]

Times are of whole processes, with bytecode cached, as it is after the first use. Rounds are interleaved: each ratio
compares processes of one round. `list` and `status` read a storage of 1,000 runs. The goal is `--help` in under three
times the peer's time: `ratios.help` above 0.333.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from time import perf_counter

from common import document, print_document, ratio_of_costs

from orchestrator.engine.planning import make_plan, write_plan, write_recipe
from orchestrator.plan.cluster import ClusterShape
from orchestrator.recipe.load import load_recipe
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory
from orchestrator.run.lease import Lease
from orchestrator.run.progress import Progress, write_progress
from orchestrator.run.state import State, write_state

PEER = "import typer, rich"
DNCTL = str(Path(sys.executable).with_name("dnctl"))
CREATED_AT = 1.7e9
FIGURES = Progress(
    step=450_000,
    num_steps=450_450,
    epoch=90,
    num_epochs=90,
    steps_per_epoch=5005,
    world_size=4,
    loss=1.234,
    top1=76.2,
    top5=93.15,
    best_top1=76.25,
    images_per_s=1234.5,
)


def write_runs(storage: Path, num_runs: int) -> None:
    """Finished runs, each with what one leaves that `list` looks at."""
    digits = storage.with_name(f"{storage.name}-digits")
    subprocess.run([DNCTL, "data", "demo", str(digits)], stdout=subprocess.DEVNULL, check=True)
    recipe = load_recipe("demo", [f"data.root={digits}"])
    plan = make_plan(recipe, ClusterShape(num_cpus=1))
    lease = Lease(holder="driver", host="here", process_id=1, attempt=1, renewed_at=CREATED_AT, expires_at=CREATED_AT)
    for number in range(num_runs):
        run = RunDirectory(storage / f"densenet169-{number:05d}")
        run.create(now=CREATED_AT + number)
        write_recipe(run, recipe)
        write_plan(run, plan)
        files.write_json(run.lease, asdict(lease))
        write_progress(run.claim_attempt("driver").progress, FIGURES)
        record = replace(
            run.read_state(), state=State.SUCCEEDED, reason="trained 90 epochs", attempt=1, exit_code=0, finished_at=2e9
        )
        write_state(run.state, record)


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """The time that one process takes, from its start to its end."""
    start = perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=15, help="interleaved rounds")
    parser.add_argument("--runs", type=int, default=1000, help="runs on the storage")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder) / "runs"
        write_runs(storage, arguments.runs)
        commands = {
            "peer": [sys.executable, "-c", PEER],
            "help": [DNCTL, "--help"],
            "list": [DNCTL, "list"],
            "status": [DNCTL, "status", f"densenet169-{arguments.runs - 1:05d}"],
            "status_last": [DNCTL, "status", "last"],
        }
        environment = {**os.environ, "DNCTL_STORAGE": str(storage), "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for command in commands.values():
            seconds(command, environment)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(arguments.repeats):
            for name, command in commands.items():
                times[name].append(seconds(command, environment))
    rows = [
        {"command": _shown(commands[name]), "median_s": median(measured), "lowest": min(measured)}
        | {"highest": max(measured), "runs": arguments.runs}
        for name, measured in times.items()
    ]
    ratios = {name: ratio_of_costs(measured, times["peer"]) for name, measured in times.items() if name != "peer"}
    print_document(document(rows=rows, ratios=ratios), as_json=arguments.json)


def _shown(command: list[str]) -> str:
    """A command as a person would type it."""
    return " ".join([Path(command[0]).name, *command[1:]])


if __name__ == "__main__":
    main()
