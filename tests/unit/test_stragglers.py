"""Who is slow is named, in the right phase, soon, and nobody else is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.run.workers import Straggler
from orchestrator.train.stragglers import NUM_WARM_UP, StepTimes, StragglerWatch

STEP_S = 0.25


def _times(compute_s: list[float], *, data_s: list[float] | None = None) -> StepTimes:
    """The times of ranks that step together: who is done early waits for the last."""
    data = np.asarray(data_s or [0.001] * len(compute_s))
    compute = np.asarray(compute_s)
    busy = data + compute
    return StepTimes(data_s=data, compute_s=compute, communication_s=busy.max() - busy + 0.01)


def _watch(num_ranks: int, images: list[int] | None = None) -> StragglerWatch:
    return StragglerWatch([f"node-{rank}" for rank in range(num_ranks)], images_per_rank=images or [64] * num_ranks)


def _run(watch: StragglerWatch, steps: range, times: StepTimes) -> list[tuple[int, str, Straggler | None]]:
    return [(step, name, straggler) for step in steps for name, straggler in watch.add(step, times)]


@pytest.mark.parametrize("num_ranks", [2, 3, 4, 8, 512])
@pytest.mark.parametrize("phase", ["compute", "data"])
def test_a_slow_worker_is_named_within_fifty_steps_and_its_recovery_too(num_ranks: int, phase: str):
    watch = _watch(num_ranks)
    usual = _times([STEP_S] * num_ranks)
    slow = [2 * STEP_S if rank == 1 else STEP_S for rank in range(num_ranks)]
    late = [STEP_S if rank == 1 else 0.001 for rank in range(num_ranks)]
    troubled = _times(slow) if phase == "compute" else _times([STEP_S] * num_ranks, data_s=late)
    assert _run(watch, range(100), usual) == []
    ((step, name, straggler),) = _run(watch, range(100, 200), troubled)
    assert (name, step < 150) == ("straggler", True)
    assert straggler is not None
    assert (straggler.rank, straggler.host, straggler.phase) == (1, "node-1", phase)
    (current,) = watch.stragglers
    assert (current.rank, current.since_step) == (1, step)
    assert current.factor == pytest.approx(2.0 if phase == "compute" else 250.0, rel=0.01)
    ((step, name, straggler),) = _run(watch, range(200, 300), usual)
    assert (name, step < 250) == ("straggler_ended", True)
    assert watch.stragglers == ()


def test_one_slow_step_names_nobody():
    watch = _watch(4)
    for step in range(200):
        slow = step % 50 == 40
        assert watch.add(step, _times([1.0 if slow else STEP_S, STEP_S, STEP_S, STEP_S])) == []


def test_the_first_steps_count_for_nothing():
    watch = _watch(2)
    for step in range(NUM_WARM_UP):
        watch.add(step, _times([20.0, STEP_S]))
    assert _run(watch, range(NUM_WARM_UP, 100), _times([STEP_S, STEP_S])) == []


def test_a_worker_with_twice_the_images_may_take_twice_the_time():
    watch = _watch(3, [128, 64, 64])
    assert _run(watch, range(100), _times([2 * STEP_S, STEP_S, STEP_S])) == []
    changes = _run(watch, range(100, 200), _times([2 * STEP_S, 2 * STEP_S, STEP_S]))
    assert [(name, straggler.rank) for _, name, straggler in changes if straggler] == [("straggler", 1)]


def test_workers_without_images_are_neither_slow_nor_compared_with():
    watch = _watch(3, [64, 64, 0])
    assert _run(watch, range(100), _times([STEP_S, STEP_S, 0.0])) == []


def test_a_single_worker_has_nobody_to_be_slower_than():
    assert _run(_watch(1), range(100), _times([STEP_S])) == []


def test_a_whole_host_that_is_slow_is_named_rank_by_rank():
    watch = StragglerWatch([f"node-{rank // 8}" for rank in range(64)], images_per_rank=[8] * 64)
    changes = _run(watch, range(60), _times([0.4 if rank // 8 == 3 else STEP_S for rank in range(64)]))
    assert {straggler.host for _, _, straggler in changes if straggler} == {"node-3"}
    assert len(watch.stragglers) == 8


def test_data_that_is_slow_for_all_is_said_of_all():
    watch = _watch(4)
    changes = _run(watch, range(100), _times([STEP_S] * 4, data_s=[0.2] * 4))
    assert [name for _, name, _ in changes] == ["data_slow"]
    assert watch.data_is_slow
    changes = _run(watch, range(100, 200), _times([STEP_S] * 4))
    assert [name for _, name, _ in changes] == ["data_slow_ended"]


def test_a_slow_network_is_blamed_on_no_worker():
    watch = _watch(4)
    usual = _times([STEP_S] * 4)
    slow = StepTimes(data_s=usual.data_s, compute_s=usual.compute_s, communication_s=usual.communication_s + 0.1)
    assert _run(watch, range(100), usual) == []
    ((step, name, straggler),) = _run(watch, range(100, 200), slow)
    assert (name, straggler, step < 150) == ("network_slow", None, True)
    assert [name for _, name, _ in _run(watch, range(200, 300), usual)] == ["network_slow_ended"]


def test_waiting_for_a_slow_worker_is_not_the_network():
    watch = _watch(3)
    _run(watch, range(100), _times([STEP_S] * 3))
    changes = _run(watch, range(100, 200), _times([4 * STEP_S, STEP_S, STEP_S]))
    assert [name for _, name, _ in changes] == ["straggler"]
    assert not watch.network_is_slow


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_two_workers_that_share_cores_and_one_of_which_does_the_books_name_nobody(seed: int):
    watch, generator = _watch(2), np.random.default_rng(seed)
    for step in range(200):
        noise = generator.lognormal(0.0, 0.1, 2)
        assert watch.add(step, _times([1.3 * STEP_S * noise[0], STEP_S * noise[1]])) == []


def test_a_worker_is_not_slow_for_what_the_others_vary_by_themselves():
    watch, generator = _watch(8), np.random.default_rng(0)
    for step in range(200):
        noise = generator.lognormal(0.0, 0.4, 8)
        noise[3] *= 1.3
        assert watch.add(step, _times((STEP_S * noise).tolist())) == []


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_ranks=st.integers(2, 32))
def test_noise_of_ten_percent_names_nobody(seed: int, num_ranks: int):
    watch, generator = _watch(num_ranks), np.random.default_rng(seed)
    for step in range(100):
        noise = generator.lognormal(0.0, 0.1, num_ranks)
        assert watch.add(step, _times((STEP_S * noise).tolist())) == []
