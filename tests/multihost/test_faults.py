"""Whatever strikes a run, and whenever: it ends with the samples, the counts and the bits of the undisturbed one."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.multihost.faults import FAULTS
from tests.multihost.history import STRIKES_ON_THE_GO, Stage, Strike, made_stage
from tests.multihost.moments import MOMENTS, moments_of
from tests.multihost.record import MATRIX, record

pytestmark = [pytest.mark.multihost, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

COVERING = (
    ("a worker is killed", "at the first step"),
    ("the newest checkpoint is damaged", "in the middle of an epoch"),
    ("a host dies", "during a checkpoint"),
    ("the driver is killed", "during evaluation"),
    ("Ray's controller is killed", "during recovery"),
)
"""Each moment, and the faults that have least in common."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="mh") as place, made_stage(Path(place)) as made:
        yield made


def test_a_run_that_is_struck_again_and_again_ends_as_the_undisturbed_one(stage: Stage):
    strikes = [Strike(fault=FAULTS[fault], moment=MOMENTS[moment]) for fault, moment in COVERING]
    outcomes = stage.play(strikes, seed="covering")
    assert [outcome.back_by for outcome in outcomes] == [strike.fault.back_by for strike in strikes]


@pytest.mark.faults
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_at_every_moment(stage: Stage, name: str):
    fault = FAULTS[name]
    strikes = [Strike(fault=fault, moment=moment) for moment in moments_of(fault)]
    at_once = len(strikes) if fault.ends_attempt else STRIKES_ON_THE_GO
    for first in range(0, len(strikes), at_once):
        outcomes = stage.play(strikes[first : first + at_once], seed=name)
        record(outcomes, history=MATRIX)
        assert {outcome.back_by for outcome in outcomes} == {fault.back_by}
