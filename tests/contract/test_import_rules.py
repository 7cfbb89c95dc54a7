"""The way from `dnctl launch` to the training loop is as short as docs/architecture.md says that it is."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WAY = (
    "orchestrator/cli/launch.py",
    "orchestrator/recipe/load.py",
    "orchestrator/plan/resolve.py",
    "orchestrator/engine/jobs.py",
    "orchestrator/engine/driver.py",
    "orchestrator/engine/worker.py",
    "orchestrator/train/loop.py",
)


def test_the_architecture_opens_with_the_way_from_launch_to_the_loop():
    page = (ROOT / "docs" / "architecture.md").read_text()
    numbered = re.findall(r"^\d+\. .*?\b(orchestrator/[\w/]+\.py)\b", page, re.MULTILINE)
    assert tuple(numbered[: len(WAY)]) == WAY


@pytest.mark.parametrize("position", range(1, len(WAY)), ids=WAY[1:])
def test_each_file_on_the_way_is_reached_from_an_earlier_one(position: int):
    """Named in it, as an import or as the module that a process runs; or in a module that it names."""
    earlier = {module for path in WAY[:position] for module in _near(path)}
    assert WAY[position] in earlier


def _near(path: str) -> set[str]:
    named = _named(path)
    return named.union(*(_named(module) for module in named))


@cache
def _named(path: str) -> frozenset[str]:
    """The files of the package that a file names."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        match node:
            case ast.ImportFrom(module=str(module), names=imported):
                names |= {module, *(f"{module}.{alias.name}" for alias in imported)}
            case ast.Import(names=imported):
                names |= {alias.name for alias in imported}
            case ast.Constant(value=str(text)) if re.fullmatch(r"orchestrator(\.\w+)+", text):
                names.add(text)
    files = {name.replace(".", "/") + ".py" for name in names if name.startswith("orchestrator.")}
    return frozenset(file for file in files if (ROOT / file).is_file())
