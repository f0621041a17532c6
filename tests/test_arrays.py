"""Sets of large integers against their obvious counterparts."""

import tracemalloc

import numpy as np
import pytest

from skqos._arrays import difference_sorted, draw_distinct, power_of_two, sorted_unique


def test_sorted_unique_is_numpys():
    values = np.random.RandomState(0).randint(50, size=200)
    np.testing.assert_array_equal(sorted_unique(values), np.unique(values))
    assert len(sorted_unique(values[:0])) == 0


@pytest.mark.parametrize("n_excluded", [0, 1, 20])
def test_difference_sorted_keeps_order_and_repetitions(n_excluded):
    rng = np.random.RandomState(0)
    values, excluded = rng.randint(50, size=200), np.sort(rng.permutation(50)[:n_excluded])
    expected = [value for value in values if value not in set(excluded)]
    np.testing.assert_array_equal(difference_sorted(values, excluded), expected)


@pytest.mark.parametrize("n_drawn", [0, 3, 6, 9])
@pytest.mark.parametrize("n_excluded", [0, 3])
def test_draws_are_distinct_allowed_and_uniform(n_drawn, n_excluded):
    rng, excluded = np.random.RandomState(0), np.arange(n_excluded)
    draws = [draw_distinct(12, n_drawn, rng, excluded) for _ in range(2000)]
    assert all(len(set(draw)) == n_drawn for draw in draws)
    share = np.bincount(np.concatenate(draws).astype(int), minlength=12) / 2000
    assert (share[:n_excluded] == 0).all()
    assert (np.abs(share[n_excluded:] - n_drawn / (12 - n_excluded)) < 0.05).all()


def test_a_small_draw_from_many_takes_little_memory():
    tracemalloc.start()
    drawn = draw_distinct(10**12, 1000, np.random.RandomState(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(drawn) == 1000
    assert peak < 1e6


@pytest.mark.parametrize("value", [5e-324, 1e-300, 0.3, 1.0, 7.0, 1e300])
def test_a_power_of_two_keeps_all_digits(value):
    unit = power_of_two(np.array([0.0, value]), np.array([]))
    assert np.frexp(unit)[0] == 0.5
    assert value / unit * unit == value
    assert value / unit <= 1
    assert power_of_two(np.zeros(2)) == 1.0
