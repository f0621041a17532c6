"""Reading quantiles and probabilities off a grid of levels, against numpy.interp row by row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skqos.distribution.quantiles import (
    LEVELS,
    check_confidence_level,
    check_levels,
    check_limits,
    interpolate,
    probability_below,
)


def _sorted_values(seed, n_rows=7, n_targets=2, n_distinct=None):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_rows, n_targets, len(LEVELS)))
    if n_distinct:
        values = np.round(values * n_distinct) / n_distinct
    return np.sort(values, axis=-1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5))
def test_levels_between_are_interpolated_and_never_cross(seed, levels):
    levels = np.sort(levels)
    values = _sorted_values(seed)
    found = interpolate(values, levels)
    slow = [[np.interp(levels, LEVELS, target) for target in row] for row in values]
    np.testing.assert_allclose(found, slow, rtol=1e-12, atol=1e-12)
    assert (np.diff(found, axis=-1) >= 0).all()


def test_levels_of_the_grid_are_exact():
    values = _sorted_values(0)
    np.testing.assert_array_equal(interpolate(values, LEVELS), values)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3))
def test_probability_is_the_inverse_of_the_quantiles(seed, limit):
    values = _sorted_values(seed)
    found = probability_below(values, np.array([limit, 0.0]))
    for row, of_row in zip(values, found, strict=True):
        for target, value, bound in zip(row, of_row, (limit, 0.0), strict=True):
            assert value == pytest.approx(np.interp(bound, target, LEVELS, left=0, right=1))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_probability_grows_with_the_limit_also_where_quantiles_are_equal(seed):
    values = _sorted_values(seed, n_targets=1, n_distinct=2)
    limits = np.unique(values)
    found = np.stack([probability_below(values, np.array([limit])) for limit in limits])
    assert (np.diff(found, axis=0) >= 0).all()
    # All that lies at a limit meets it.
    last = (values <= limits[:, None, None, None]).sum(-1) - 1
    assert (found >= np.where(last >= 0, LEVELS[last], 0) - 1e-12).all()


@pytest.mark.parametrize(
    ("quantiles", "error", "message"),
    [
        (0.5, ValueError, "quantiles must be a list of one or more levels"),
        ([], ValueError, "quantiles must be a list of one or more levels"),
        ([[0.5]], ValueError, "quantiles must be a list of one or more levels"),
        ([0.5, 0.995], ValueError, r"quantiles must be between 0\.01 and 0\.99"),
        ([np.nan], ValueError, r"quantiles must be between 0\.01 and 0\.99"),
        ([5, 95], ValueError, r"quantiles must be between 0\.01 and 0\.99"),
        (["a"], TypeError, "quantiles must contain numbers"),
        ([True], TypeError, "quantiles must contain numbers"),
        ("median", ValueError, "quantiles must be a list of one or more levels"),
    ],
)
def test_bad_levels(quantiles, error, message):
    with pytest.raises(error, match=message):
        check_levels(quantiles)


def test_confidence_levels():
    np.testing.assert_allclose(check_confidence_level(0.9), [0.05, 0.95])
    # The widest one is not refused for its rounding.
    np.testing.assert_allclose(check_levels(check_confidence_level(0.98)), [0.01, 0.99])
    assert check_confidence_level(np.float32(0.5)) == [0.25, 0.75]
    for wrong in (0, 1, 0.99, -0.5, np.nan, 90):
        with pytest.raises(ValueError, match=r"confidence_level must be above 0 and at most 0\.98"):
            check_confidence_level(wrong)
    for wrong in ("high", None, True):
        with pytest.raises(TypeError, match="confidence_level must be a number"):
            check_confidence_level(wrong)


def test_limits():
    assert check_limits(2, 3).tolist() == [2.0, 2.0, 2.0]
    assert check_limits([1, 2.5], 2).tolist() == [1.0, 2.5]
    for wrong in ([1, 2], [[1.0]], [], np.nan):
        with pytest.raises(ValueError, match="limit must"):
            check_limits(wrong, 3)
    with pytest.raises(TypeError, match="limit must be a number"):
        check_limits("fast", 1)
