"""The bookkeeping of injected faults: what is drawn, and what the document says came of it."""

import os
import subprocess
from pathlib import Path
from time import time
from types import SimpleNamespace

from orchestrator.run.directory import RunDirectory
from tests.multihost.chaos import drawn
from tests.multihost.faults import FAULTS
from tests.multihost.history import STRIKES_ON_THE_GO
from tests.multihost.moments import MOMENTS, is_partly_written
from tests.multihost.record import Outcome, table
from tests.multihost.scene import Standstill
from tests.multihost.test_faults import COVERING


def outcome(*, fault: str, moment: str, back_after_s: float | None, history: str = "matrix") -> Outcome:
    back_by = "itself" if back_after_s is not None else "nothing"
    return Outcome(fault=fault, moment=moment, back_by=back_by, back_after_s=back_after_s, history=history)


def test_a_history_is_a_function_of_its_seed_and_number():
    assert drawn("a", 3) == drawn("a", 3)
    assert len({str(drawn(seed, number)) for seed in "abc" for number in range(5)}) == 15


def test_no_fault_is_drawn_at_a_moment_at_which_it_cannot_strike():
    strikes = [strike for number in range(200) for strike in drawn("all", number)[1]]
    assert {strike.fault.name for strike in strikes} == {fault.name for fault in FAULTS.values() if fault.only is None}
    assert not any(strike.moment.name in strike.fault.never for strike in strikes)


def test_a_run_has_steps_left_for_every_strike_of_a_history():
    histories = [drawn("all", number)[1] for number in range(200)]
    assert max(sum(not strike.fault.ends_attempt for strike in strikes) for strikes in histories) == STRIKES_ON_THE_GO


def test_what_every_test_run_does_has_every_moment():
    assert {moment for _, moment in COVERING} == set(MOMENTS)


def test_a_checkpoint_that_is_being_written_is_told_from_one_that_is_whole_or_being_deleted(tmp_path: Path):
    run = RunDirectory(tmp_path / "run")
    run.create(now=time())
    run.claim_attempt("holder")
    attempt = SimpleNamespace(run=run, attempt=lambda: run.attempt(1))
    older, newer = (run.checkpoints / f"step-0000000{step}.1" for step in (3, 4))
    for folder in (older, newer):
        folder.mkdir()
        assert not is_partly_written(attempt), "nothing is in it"
        (folder / "model.safetensors").touch()
        assert is_partly_written(attempt)
        (folder / "COMMITTED").touch()
        assert not is_partly_written(attempt)
    (older / "COMMITTED").unlink()
    assert not is_partly_written(attempt), "the older one is on its way out"


def test_the_table_says_who_brought_a_run_back_and_how_often():
    outcomes = [
        outcome(fault="a", moment="now", back_after_s=9.4),
        outcome(fault="b", moment="then", back_after_s=None),
        outcome(fault="a", moment="then", back_after_s=4.0, history="1/2"),
        outcome(fault="a", moment="now", back_after_s=None, history="1/3"),
    ]
    assert table(outcomes, {"a": ["now", "then"], "b": ["then"]}, ["now", "then"]).splitlines()[2:] == [
        "| a | itself, 9 s | not run | 1 of 2 back, 4 s |",
        "| b | – | **not back** | not drawn |",
    ]


def test_a_process_that_hangs_goes_on_hanging_after_the_moment_in_which_it_was_struck():
    process = subprocess.Popen(["sleep", "60"])
    standstill = Standstill()
    try:
        with standstill.held(process.pid):
            go_on = standstill.hang(process.pid)
            os.waitpid(process.pid, os.WUNTRACED)
        assert os.waitpid(process.pid, os.WCONTINUED | os.WNOHANG) == (0, 0)
        go_on()
        _, status = os.waitpid(process.pid, os.WCONTINUED)
        assert os.WIFCONTINUED(status)
    finally:
        process.kill()
        process.wait()
