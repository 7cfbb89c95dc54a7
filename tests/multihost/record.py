"""What came of strikes, kept as JSON, and the table in docs/reliability.md that is made of it.

    python -m tests.multihost.record     writes the table anew

Strikes are recorded where RECORD_FAULTS is set, as `make test-faults` and `make chaos` do.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results" / "faults.json"
DOCUMENT = REPOSITORY / "docs" / "reliability.md"
MATRIX = "matrix"
"""The history of an outcome that belongs to the matrix of faults and moments."""
BEGIN, END = "<!-- what came of it: written by `make test-faults` -->", "<!-- until here -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a strike."""

    fault: str
    moment: str
    back_by: str
    """"itself", "resume", or "nothing": then `history` failed."""
    back_after_s: float | None
    """From the strike to figures of a step after it, including what the fault itself lasted."""
    history: str = ""
    """MATRIX, or how to play it again."""
    commit: str = ""

    @property
    def cell(self) -> tuple[str, str]:
        """Where it stands in the matrix."""
        return self.fault, self.moment


def record(outcomes: Sequence[Outcome], *, history: str) -> None:
    """Keep them, in place of earlier ones of the same history."""
    if not os.environ.get("RECORD_FAULTS"):
        return
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    from common import commit, machine

    struck = {(outcome.fault, outcome.moment) for outcome in outcomes}
    kept = [old for old in read() if old.history != history or (history == MATRIX and old.cell not in struck)]
    new = [replace(outcome, history=history, commit=commit() or "") for outcome in outcomes]
    document = {"machine": machine(), "strikes": [asdict(outcome) for outcome in [*kept, *new]]}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


def read() -> list[Outcome]:
    """All that were recorded."""
    if not RESULTS.exists():
        return []
    return [Outcome(**strike) for strike in json.loads(RESULTS.read_text())["strikes"]]


def table(outcomes: Sequence[Outcome], faults: Mapping[str, Sequence[str]], moments: Sequence[str]) -> str:
    """A row for each fault, a column for each moment, and one for the random histories.

    faults: each fault's name, and the moments at which it strikes.
    """
    lines = [
        "| " + " | ".join(["fault", *moments, "random histories"]) + " |",
        "|---" * (len(moments) + 2) + "|",
    ]
    matrix = {outcome.cell: outcome for outcome in outcomes if outcome.history == MATRIX}
    for fault, struck in faults.items():
        cells = [_cell(matrix.get((fault, moment))) if moment in struck else "–" for moment in moments]
        drawn = [outcome for outcome in outcomes if outcome.fault == fault and outcome.history != MATRIX]
        lines.append("| " + " | ".join([fault, *cells, _summed(drawn)]) + " |")
    return "\n".join(lines)


def whole_table() -> str:
    """The table of what was recorded."""
    from tests.multihost.faults import FAULTS
    from tests.multihost.moments import MOMENTS, moments_of

    struck = {fault.name: [moment.name for moment in moments_of(fault)] for fault in FAULTS.values()}
    return table(read(), struck, list(MOMENTS))


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not run"
    if outcome.back_after_s is None:
        return "**not back**"
    return f"{outcome.back_by}, {outcome.back_after_s:.0f} s"


def _summed(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "not drawn"
    back = [outcome.back_after_s for outcome in outcomes if outcome.back_after_s is not None]
    what = f"{len(back)} of {len(outcomes)} back"
    return what + (f", {median(back):.0f} s" if back else "")


def write_table() -> None:
    """Put the table into the document."""
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{whole_table()}\n{END}{after}")


if __name__ == "__main__":
    write_table()
