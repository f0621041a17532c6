"""Statistics of weighted rows against those of repeated rows."""

import numpy as np
import pandas as pd
import pytest

from skqos._weighted import group_medians, weighted_median, weighted_quantile


def draw(seed, n=60):
    """Return values with ties, groups and whole-number weights."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=n).round(1), rng.integers(0, 9, n) * 3, rng.integers(1, 6, n)


@pytest.mark.parametrize("seed", range(20))
def test_medians_are_those_of_repeated_values(seed):
    values, groups, counts = draw(seed, n=30 + seed)
    repeated, groups_repeated = (np.repeat(part, counts) for part in (values, groups))
    assert weighted_median(values, counts.astype(float)) == np.median(repeated)
    found, medians = group_medians(values, groups, counts.astype(float))
    expected = pd.Series(repeated).groupby(groups_repeated).median()
    np.testing.assert_array_equal(found, expected.index)
    np.testing.assert_array_equal(medians, expected)


@pytest.mark.parametrize("unit", [1e-30, 0.1, 1 / 3, 1e30])
def test_medians_know_no_unit_of_weights(unit):
    for seed in range(20):
        values, groups, counts = draw(seed)
        expected = group_medians(values, groups, counts.astype(float))[1]
        np.testing.assert_array_equal(group_medians(values, groups, unit * counts)[1], expected)


def test_weights_of_one_group_do_not_matter_to_another():
    values, groups = np.array([1.0, 2.0, 4.0, 7.0, 9.0]), np.array([0, 0, 1, 1, 1])
    weights = np.array([1e30, 1e30, 1e-30, 1e-30, 3e-30])
    np.testing.assert_array_equal(group_medians(values, groups, weights)[1], [1.5, 9.0])


@pytest.mark.parametrize("value", [5e-324, 1.7e308])
def test_medians_of_the_smallest_and_largest_numbers(value):
    assert weighted_median(np.array([value, value]), np.ones(2)) == value
    assert weighted_median(np.array([0.5 * value, value]), np.ones(2)) <= value


@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 0.9, 0.951, 1.0])
def test_quantiles_are_those_of_repeated_values(level):
    for seed in range(20):
        values, _, counts = draw(seed)
        assert weighted_quantile(values, np.ones(60), level) == np.quantile(values, level)
        expected = np.quantile(np.repeat(values, counts), level)
        found = weighted_quantile(values, counts.astype(float), level)
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_quantiles_of_small_weights_count_the_average_as_a_row(level):
    values, _, counts = draw(0)
    expected = np.quantile(values, level)
    assert weighted_quantile(values, np.full(60, 1e-3), level) == pytest.approx(expected)
    small, smaller = (weighted_quantile(values, unit * counts, level) for unit in (1e-2, 1e-20))
    assert small == pytest.approx(smaller)
