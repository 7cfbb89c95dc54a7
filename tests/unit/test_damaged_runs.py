"""Whatever bytes of a run directory are flipped, cut off or gone: no command crashes, and nothing false is believed."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import islice
from pathlib import Path
from time import time
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.cli.follow import MAX_AT_ONCE, follow
from orchestrator.data.index import index_dataset
from orchestrator.engine.planning import load_plan
from orchestrator.errors import DnctlError
from orchestrator.monitor.run_reader import MAX_NEWS, RunReader
from orchestrator.run import documents
from orchestrator.run.checkpoints import list_checkpoints, newest_whole, read_checkpoint
from orchestrator.run.directory import RunDirectory
from orchestrator.run.ending import read_ending
from orchestrator.run.segments import read_segments, segment_path
from orchestrator.run.state import State
from orchestrator.run.status import read_status
from orchestrator.train.loop import train
from orchestrator.train.reporter import RunReporter
from orchestrator.train.world import World
from tests.run_directories import make_run as make_run_with_figures
from tests.run_directories import mark_running
from tests.training import make_run

pytestmark = pytest.mark.slow
SEED = 20260101
FLIPS_PER_FILE = 6
COMMANDS = (
    ["list"],
    ["list", "--json"],
    ["status", "run"],
    ["status", "run", "--json"],
    ["logs", "run"],
    ["watch", "--once"],
    ["watch", "run", "--once"],
    ["watch", "run", "--once", "--json"],
    ["checkpoint", "list", "run"],
    ["checkpoint", "verify", "run"],
)

Damage = Callable[[bytes, random.Random], bytes | None]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_images: Path) -> Path:
    """A storage with one run, which a training of nine steps left, and which looks alive."""
    root = tmp_path_factory.mktemp("trained")
    run = make_run(root / "run", small_images, workers=1)
    attempt = run.claim_attempt("holder", submitted_at=time())
    plan = load_plan(run)
    assert plan is not None
    reporter = RunReporter(run, attempt=attempt.number, keep_last=3, keep_best=0)
    train(plan, index_dataset(str(small_images)), World.single(), reporter)
    reporter.close()
    attempt.rank_log(0).write_text("2026-01-01 00:00:00,000 training\nno time\n")
    mark_running(run, now=time(), duration_s=1e6)
    return root


@pytest.fixture
def storage(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "storage"
    shutil.copytree(trained, root)
    monkeypatch.setenv("DNCTL_STORAGE", str(root))
    return root


def flipped(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ draw.randrange(1, 256)]) + content[at + 1 :]


def cut_short(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def gone(_: bytes, __: random.Random) -> None:
    return None


def nested(_: bytes, __: random.Random) -> bytes:
    return b"[" * 200_000 + b"\n"


def absurd(content: bytes, draw: random.Random) -> bytes:
    """Every number of a JSON text is one that no run has."""
    number = draw.choice([b"1e999", b"-1", b"NaN", b"9" * 5000, b"18446744073709551615", b"0", b"1e18", b'"x"', b"{}"])
    return b"".join(number + b"," if part.strip().isdigit() else part for part in split_numbers(content))


def split_numbers(content: bytes) -> list[bytes]:
    return content.replace(b": ", b": \0").replace(b",", b"\0,").split(b"\0")


def damages(root: Path, kinds: tuple[Damage, ...], *, times: int) -> Iterator[str]:
    """Damages one file after another, says what was done, and puts it back."""
    draw = random.Random(SEED)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for kind in kinds:
            for _ in range(times if kind is flipped or kind is cut_short else 1):
                damaged = kind(content, draw) if content else b"\0"
                if damaged is None:
                    path.unlink()
                else:
                    path.write_bytes(damaged)
                yield f"{path.relative_to(root)} {kind.__name__}"
                path.write_bytes(content)


def readings(run: RunDirectory) -> dict[str, Any]:
    """All that a run directory says, by who asks; what is refused is None."""

    def or_none(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except DnctlError:
            return None

    attempt = run.attempt(1)
    chosen = or_none(lambda: newest_whole(run.checkpoints, passed_over=lambda *_: None))
    status = or_none(lambda: read_status(run, now=time()).to_json())
    plan = or_none(lambda: load_plan(run))
    return {
        **{f"status {key}": value for key, value in (status or {}).items() if key in SAID_BY_ONE_FILE},
        **{f"checkpoint {chosen[0].path.name}": chosen[1] for _ in (1,) if chosen},
        **{f"event {row}": row for row in or_none(lambda: list(read_segments(attempt.path, "events"))) or ()},
        **{f"row {row}": row for row in or_none(lambda: list(read_segments(attempt.path, "metrics"))) or ()},
        "ending": or_none(lambda: read_ending(attempt)),
        "plan": plan,
    }


SAID_BY_ONE_FILE = (
    "step", "num_steps", "epoch", "num_epochs", "loss", "train_top1", "top1", "top5", "best_top1", "images_per_s",
    "eta_s", "world_size", "last_checkpoint", "attempt", "created_at", "finished_at", "exit_code",
)  # fmt: skip


def test_no_flipped_byte_is_believed(storage: Path):
    run = RunDirectory(storage / "run")
    whole = readings(run)
    for checkpoint in list_checkpoints(run.checkpoints):
        whole[f"checkpoint {checkpoint.path.name}"] = read_checkpoint(checkpoint.path)
    count = 0
    for damage in damages(storage, (flipped, cut_short), times=FLIPS_PER_FILE):
        count += 1
        for name, value in readings(run).items():
            assert value is None or (name in whole and value == whole[name]), f"{damage}: {name} is {value}"
    assert count > 150


def test_no_command_crashes_on_a_damaged_run(storage: Path):
    count = 0
    for damage in damages(storage, (flipped, cut_short, gone, nested, absurd), times=1):
        command = COMMANDS[count % len(COMMANDS)]
        count += 1
        for arguments in (["status", "run", "--json"], command):
            result = CliRunner().invoke(app, arguments)
            assert isinstance(result.exception, (DnctlError, SystemExit, type(None))), (
                f"{damage}: dnctl {' '.join(arguments)}: {result.exception!r}"
            )
            if "--json" in arguments and result.exit_code == 0:
                for line in [result.stdout] if "watch" not in arguments else result.stdout.splitlines():
                    json.loads(line)
    assert count > 80


def test_a_hundred_thousand_events_are_read_and_the_latest_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run_with_figures(tmp_path, "run", state=State.SUCCEEDED)
    event = {"event": "step_refused", "loss": "nan", "grad_norm": "nan", "policy": "skip", "samples": [1, 2, 3]}
    rows = (documents.seal(json.dumps({"time": time(), **event, "step": step}).encode()) for step in range(100_000))
    for number in range(1, 101):
        content = b"\n".join(islice(rows, 1000)) + b"\n"
        segment_path(run.attempt(1).path, "events", number).write_bytes(content)

    reader = RunReader(run)
    view = reader.read()
    assert reader.num_news > 100_000
    assert len(view.news) == MAX_NEWS
    assert view.news[-1].details["step"] == 99_999

    monkeypatch.setenv("DNCTL_STORAGE", str(tmp_path))
    for command in COMMANDS:
        if command[:2] != ["checkpoint", "verify"]:  # there is none
            assert CliRunner().invoke(app, command).exit_code == 0, command

    console = Console(file=StringIO(), width=200)
    monkeypatch.setattr("orchestrator.cli.follow.stderr", lambda: console)
    follow(run)
    lines = console.file.getvalue().splitlines()
    assert len(lines) < MAX_AT_ONCE + 10
    assert lines[0].startswith("… 99,9")
    assert "99999" in lines[MAX_AT_ONCE]
