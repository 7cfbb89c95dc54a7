"""1,281,167 rows: what a rank holds in memory, and where it goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_rank_on_imagenets_rows_holds_less_than_200_mb_at_any_position():
    command = [sys.executable, "benchmarks/scale.py", "--repeats", "1", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["step"] for row in rows] == ["first", "last"]
    assert all(0 < row["memory_mb"] < 200 for row in rows)
