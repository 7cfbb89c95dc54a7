"""The order of an epoch."""

import hashlib

import numpy as np
import pytest

from orchestrator.data.order import epoch_order

RECORDED_HEAD = [20277, 50824, 30435, 28781, 49042]
RECORDED_SHA256 = "00fae98cec8ba127ecc4abd698caf4a3565e5c4b9fb645c307b9aaef8718b9b0"


@pytest.mark.parametrize("num_samples", [0, 1, 2, 1000, 65536, 70001])
def test_every_sample_comes_once(num_samples):
    order = epoch_order(seed=3, epoch=7, num_samples=num_samples)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(num_samples))


def test_seeds_and_epochs_give_orders_of_their_own():
    orders = [epoch_order(seed=s, epoch=e, num_samples=500) for s, e in ((0, 0), (0, 1), (1, 0), (2**63, 0))]
    assert len({order.tobytes() for order in orders}) == len(orders)


def test_order_is_the_one_recorded():
    order = epoch_order(seed=20170828, epoch=2, num_samples=70001)
    assert order[:5].tolist() == RECORDED_HEAD
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest() == RECORDED_SHA256


def test_positions_are_uniform():
    first = np.array([epoch_order(seed=1, epoch=e, num_samples=10)[0] for e in range(2000)])
    assert np.bincount(first, minlength=10).min() > 150  # 200 expected, standard deviation 13
