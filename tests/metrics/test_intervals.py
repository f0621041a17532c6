"""Coverage and Winkler score against loops."""

import numpy as np
import pandas as pd
import pytest

from skqos.metrics import interval_coverage, nan_pinball_loss, winkler_score
from skqos.metrics._intervals import band_rows


@pytest.fixture
def data():
    """80 rows of 2 targets, 20 % of the entries unobserved; intervals; a group of each row."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(80, 2)) * [1, 10]
    lower = y - rng.normal(0.3, 1, size=(80, 2))
    intervals = np.stack([lower, lower + rng.exponential(2, size=(80, 2))], axis=-1)
    y[rng.random((80, 2)) < 0.2] = np.nan
    return y, intervals, rng.choice(["ann", "bob", "eve"], 80)


def coverage_slowly(y, intervals):
    inside = [
        low <= value <= high
        for value, (low, high) in zip(y, intervals, strict=True)
        if not np.isnan(value)
    ]
    return np.mean(inside)


def winkler_slowly(y, intervals, level):
    scores = []
    for value, (low, high) in zip(y, intervals, strict=True):
        if np.isnan(value):
            continue
        score = high - low
        if value < low:
            score += 2 / (1 - level) * (low - value)
        if value > high:
            score += 2 / (1 - level) * (value - high)
        scores.append(score)
    return np.mean(scores)


def test_coverage_by_loops(data):
    y, intervals, _ = data
    expected = [coverage_slowly(y[:, k], intervals[:, k]) for k in range(2)]
    assert 0.3 < expected[0] < 0.9
    assert interval_coverage(y[:, 0], intervals[:, 0]) == pytest.approx(expected[0])
    raw = interval_coverage(y, intervals, multioutput="raw_values")
    np.testing.assert_allclose(raw, expected)
    assert interval_coverage(y, intervals) == pytest.approx(np.mean(expected))
    assert type(interval_coverage(y, intervals)) is float


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_winkler_by_loops(data, level):
    y, intervals, _ = data
    expected = [winkler_slowly(y[:, k], intervals[:, k], level) for k in range(2)]
    raw = winkler_score(y, intervals, confidence_level=level, multioutput="raw_values")
    np.testing.assert_allclose(raw, expected)
    score = winkler_score(y, intervals, confidence_level=level)
    assert score == pytest.approx(np.mean(expected))


def test_winkler_is_the_pinball_losses_of_both_ends(data):
    y, intervals, _ = data
    losses = [
        nan_pinball_loss(y, intervals[..., end], quantile=quantile)
        for end, quantile in enumerate((0.1, 0.9))
    ]
    score = winkler_score(y, intervals, confidence_level=0.8)
    assert score == pytest.approx(2 / 0.2 * sum(losses))


def test_true_quantiles_score_best():
    y = np.random.default_rng(0).exponential(size=50_000)
    scores = {}
    for low, high in ((0.02, 0.92), (0.05, 0.95), (0.09, 0.99), (0.05, 0.99), (0.2, 0.8)):
        interval = -np.log1p([-low, -high])
        scores[low, high] = winkler_score(y, np.tile(interval, (len(y), 1)))
    assert min(scores, key=scores.get) == (0.05, 0.95)


def test_the_ends_are_part_of_an_interval():
    assert interval_coverage([1.0, 2.0, 3.0], [[1.0, 2.0], [1.0, 2.0], [3.0, 3.0]]) == 1.0
    assert winkler_score([1.0, 2.0], [[1.0, 2.0], [1.0, 2.0]]) == 1.0


def test_one_target_may_have_an_axis_of_its_own(data):
    y, intervals = data[0][:, [0]], data[1][:, [0]]
    expected = interval_coverage(y[:, 0], intervals[:, 0])
    assert interval_coverage(y, intervals) == expected
    assert interval_coverage(y, intervals[:, 0]) == expected
    assert interval_coverage(y[:, 0], intervals) == expected


# --- By group and band --------------------------------------------------------------------------


def test_groups_by_loops(data):
    y, intervals, groups = data
    found = interval_coverage(y, intervals, groups=groups, multioutput="raw_values")
    assert found.index.tolist() == ["ann", "bob", "eve"]
    for label in found.index:
        rows = groups == label
        expected = [coverage_slowly(y[rows, k], intervals[rows, k]) for k in range(2)]
        np.testing.assert_allclose(found.loc[label], expected)
    mean = interval_coverage(y, intervals, groups=groups)
    pd.testing.assert_series_equal(mean, found.mean(axis=1).rename("coverage"))


def test_groups_keep_their_labels(data):
    y, intervals, groups = data
    users = 2**60 + np.unique(groups, return_inverse=True)[1]
    expected = interval_coverage(y, intervals, groups=groups).to_numpy()
    for labels in (users, users.tolist(), pd.Series(users, index=users[::-1]), pd.Index(users)):
        found = interval_coverage(y, intervals, groups=labels)
        assert found.index.tolist() == [2**60, 2**60 + 1, 2**60 + 2]
        np.testing.assert_array_equal(found, expected)


def test_rows_without_a_label_are_a_group(data):
    """As in `group_errors`: context is often unknown."""
    y, intervals, groups = data
    labels = pd.Series(groups, dtype=object).where(np.arange(len(y)) % 3 > 0)
    found = interval_coverage(y, intervals, groups=labels)
    names = labels.map(str).where(labels.notna(), "unknown").to_numpy()
    pd.testing.assert_series_equal(found, interval_coverage(y, intervals, groups=names))
    assert "unknown" in found.index


def test_names_of_series_are_those_of_the_index(data):
    y, intervals, groups = data
    by = pd.Series(np.arange(80.0), name="prediction")
    for name, options in {
        "group": {"groups": groups},
        "user": {"groups": pd.Series(groups, name="user")},
        "band": {"by": by.to_numpy()},
        "prediction": {"by": by},
    }.items():
        assert interval_coverage(y, intervals, **options).index.name == name


def test_groups_without_an_observation_are_left_out(data):
    y, intervals, groups = data
    y[groups == "bob"] = np.nan
    y[groups == "eve", 1] = np.nan
    assert interval_coverage(y, intervals, groups=groups).index.tolist() == ["ann", "eve"]
    raw = interval_coverage(y, intervals, groups=groups, multioutput="raw_values")
    assert np.isnan(raw.loc["eve", 1])
    with pytest.raises(ValueError, match="y_true is NaN in every row"):
        interval_coverage(y * np.nan, intervals, groups=groups)


@pytest.mark.parametrize("n_bands", [1, 3, 10, 200])
def test_bands_by_loops(data, n_bands):
    # A band without an observation would not be there.
    y, intervals = np.nan_to_num(data[0]), data[1]
    by = np.random.default_rng(1).exponential(size=80).round(1)
    found = interval_coverage(y[:, 0], intervals[:, 0], by=by, n_bands=n_bands)
    lowest = found.index[0]
    n_rows = 0
    for band, share in found.items():
        rows = (by > band.left) & (by <= band.right)
        if band == lowest:
            rows |= by == band.left
        n_rows += rows.sum()
        assert share == pytest.approx(coverage_slowly(y[rows, 0], intervals[rows, 0]))
    assert n_rows == 80
    assert len(found) <= n_bands


def test_bands_hold_as_many_rows_each():
    by = np.random.default_rng(0).normal(size=1000)
    codes, bands = band_rows(by, 10)
    np.testing.assert_array_equal(np.bincount(codes), np.full(10, 100))
    assert len(bands) == 10
    for code, band in enumerate(bands):
        assert by[codes == code].max() == band.right


@pytest.mark.parametrize("value", [0.0, -3.0, 1e300, 5e-324])
def test_equal_numbers_are_one_band(value):
    codes, bands = band_rows(np.full(7, value), 10)
    assert codes.tolist() == [0] * 7
    assert bands.right.tolist() == [value]


def test_numbers_that_repeat_leave_the_others_their_bands():
    codes, bands = band_rows([0.0] * 60 + [1.0, 2.0] * 20, 10)
    np.testing.assert_array_equal(np.bincount(codes), [60, 20, 20])
    assert bands.right.tolist() == [0.0, 1.0, 2.0]


# --- What is refused ----------------------------------------------------------------------------

GOOD = [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
BAD = {
    "crossed": (
        [*GOOD[:2], [4.0, 3.0]],
        {},
        r"lower end of row 2, 4\.0, is above the upper .*3\.0",
    ),
    "transposed": (np.transpose(GOOD), {}, "y_true has 3, intervals has 2"),
    "no upper end": ([0.0, 1.0, 2.0], {}, r"in shape \(3, 2\); got \(3,\)"),
    "three ends": (np.ones((3, 3)), {}, r"in shape \(3, 2\); got \(3, 3\)"),
    "of two targets": (np.ones((3, 2, 2)), {}, r"in shape \(3, 2\); got \(3, 2, 2\)"),
    "four dimensions": (np.ones((3, 1, 2, 1)), {}, "intervals must contain"),
    "NaN": ([*GOOD[:2], [np.nan, 3.0]], {}, "Input intervals contains NaN"),
    "infinite": ([*GOOD[:2], [1.0, np.inf]], {}, "Input intervals contains infinity"),
    "multioutput": (GOOD, {"multioutput": "mean"}, "multioutput must be"),
}
BAD_GROUPS = {
    "both": ({"groups": [1, 2, 3], "by": [1, 2, 3]}, "Give either groups or by"),
    "too few labels": ({"groups": ["a", "b"]}, "y_true has 3, groups has 2"),
    "too few numbers": ({"by": [1.0, 2.0]}, "y_true has 3, by has 2"),
    "no label": ({"groups": [None, None, None]}, "groups: row 0 is NaN"),
    "two kinds": ({"groups": ["a", 1, 2]}, "groups mixes ids of type int, str"),
    "a table": ({"groups": [[1, 2]] * 3}, "groups"),
    "NaN": ({"by": [1.0, np.nan, 2.0]}, "Input by contains NaN"),
    "two columns": ({"by": np.ones((3, 2))}, "by must have one target"),
    "no bands": ({"by": [1.0, 2.0, 3.0], "n_bands": 0}, "'n_bands' parameter"),
    "multioutput": ({"groups": [1, 2, 3], "multioutput": "mean"}, "multioutput must be"),
}


@pytest.mark.parametrize("metric", [interval_coverage, winkler_score])
@pytest.mark.parametrize("case", BAD)
def test_bad_intervals_raise(metric, case):
    intervals, params, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        metric([0.5, 1.5, 2.5], intervals, **params)


@pytest.mark.parametrize("case", BAD_GROUPS)
def test_bad_groups_raise(case):
    params, message = BAD_GROUPS[case]
    with pytest.raises((ValueError, TypeError), match=message):
        interval_coverage([0.5, 1.5, 2.5], GOOD, **params)


@pytest.mark.parametrize("metric", [interval_coverage, winkler_score])
def test_nothing_observed_raises(metric):
    with pytest.raises(ValueError, match="y_true: no target has"):
        metric([np.nan] * 3, GOOD)


@pytest.mark.parametrize("level", [0, 1, 90, np.nan, "high"])
def test_levels_lie_between_0_and_1(level):
    with pytest.raises(ValueError, match="'confidence_level' parameter of winkler_score"):
        winkler_score([0.5, 1.5, 2.5], GOOD, confidence_level=level)
