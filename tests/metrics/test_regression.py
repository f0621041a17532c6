"""NaN-aware metrics against scikit-learn's."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    make_scorer,
    mean_absolute_error,
    mean_pinball_loss,
    r2_score,
    root_mean_squared_error,
)

from skqos import metrics
from skqos.baselines import MedianRegressor

PAIRS = [
    (metrics.nan_mean_absolute_error, mean_absolute_error),
    (metrics.nan_root_mean_squared_error, root_mean_squared_error),
    (metrics.nan_r2_score, r2_score),
    (partial(metrics.nan_pinball_loss, quantile=0.8), partial(mean_pinball_loss, alpha=0.8)),
]
METRICS = [*(ours for ours, _ in PAIRS), metrics.nan_normalized_mean_absolute_error]


@pytest.fixture
def targets():
    """60 rows of 3 targets of different scale, 30 % of the entries unobserved."""
    rng = np.random.default_rng(0)
    y_true = rng.normal(size=(60, 3)) * [1, 10, 100] + [0, 5, 300]
    y_pred = y_true + rng.normal(size=(60, 3))
    y_true[rng.random((60, 3)) < 0.3] = np.nan
    return y_true, y_pred


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("multioutput", ["raw_values", "uniform_average"])
def test_finite_targets_score_as_in_scikit_learn(targets, ours, theirs, multioutput):
    y_true, y_pred = np.nan_to_num(targets[0]), targets[1]
    for true, pred in ((y_true, y_pred), (y_true[:, 0], y_pred[:, 0])):
        expected = theirs(true, pred, multioutput=multioutput)
        np.testing.assert_allclose(ours(true, pred, multioutput=multioutput), expected)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_each_target_counts_its_observed_entries(targets, ours, theirs):
    y_true, y_pred = targets
    seen = ~np.isnan(y_true)
    expected = [theirs(y_true[seen[:, p], p], y_pred[seen[:, p], p]) for p in range(3)]
    np.testing.assert_allclose(ours(y_true, y_pred, multioutput="raw_values"), expected)
    assert ours(y_true, y_pred) == pytest.approx(np.mean(expected))
    assert type(ours(y_true, y_pred)) is float


def test_normalized_error_divides_by_the_observed_magnitude():
    y_true = [[1.0, -100.0], [3.0, np.nan], [np.nan, 300.0]]
    y_pred = [[2.0, -120.0], [3.0, 0.0], [9.0, 300.0]]
    error = metrics.nan_normalized_mean_absolute_error
    np.testing.assert_allclose(error(y_true, y_pred, multioutput="raw_values"), [0.25, 0.05])
    assert error(y_true, y_pred) == pytest.approx(0.15)
    assert error(y_true, np.zeros((3, 2))) == 1.0


def test_normalized_error_of_zeros_raises():
    with pytest.raises(ValueError, match="all observed values of a target are zero"):
        metrics.nan_normalized_mean_absolute_error([0.0, np.nan], [1.0, 1.0])


@pytest.mark.parametrize("metric", METRICS)
def test_unobserved_target_is_left_out(targets, metric):
    y_true, y_pred = targets
    y_true[:, 1] = np.nan
    raw = metric(y_true, y_pred, multioutput="raw_values")
    assert np.isnan(raw).tolist() == [False, True, False]
    assert metric(y_true, y_pred) == pytest.approx(raw[[0, 2]].mean())


@pytest.mark.parametrize("metric", METRICS)
def test_no_observed_target_raises(metric):
    with pytest.raises(ValueError, match="y_true: no target has"):
        metric(np.full((4, 2), np.nan), np.zeros((4, 2)))


def test_pinball_loss_by_its_definition(targets):
    y_true, y_pred = targets[0][:, 0], targets[1][:, 0]
    losses = [
        0.05 * (true - pred) if true >= pred else 0.95 * (pred - true)
        for true, pred in zip(y_true, y_pred, strict=True)
        if not np.isnan(true)
    ]
    loss = metrics.nan_pinball_loss(y_true, y_pred, quantile=0.05)
    assert loss == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("quantile", [0, 1.0, -0.1, 90, np.nan, "median", None])
def test_quantiles_lie_between_0_and_1(quantile):
    with pytest.raises(ValueError, match="'quantile' parameter of nan_pinball_loss"):
        metrics.nan_pinball_loss([1.0], [1.0], quantile=quantile)


def test_r2_needs_two_observations_and_takes_constants():
    y_true = np.array([[1.0, 5.0, 5.0], [2.0, np.nan, 5.0], [3.0, np.nan, 5.0]])
    y_pred = np.array([[1.0, 5.0, 5.0], [2.0, 5.0, 5.0], [3.0, 5.0, 4.0]])
    raw = metrics.nan_r2_score(y_true, y_pred, multioutput="raw_values")
    np.testing.assert_array_equal(raw, [1.0, np.nan, 0.0])
    assert metrics.nan_r2_score(y_true, y_pred) == 0.5
    with pytest.raises(ValueError, match=r"no target has 2 or more observed values"):
        metrics.nan_r2_score([1.0, np.nan], [1.0, 1.0])


@pytest.mark.parametrize("value", [0.1, 0.7, 2.3, 123.456, 1e299])
@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.7]])
def test_r2_of_a_constant_is_0_or_1_though_its_mean_is_rounded(value, weights):
    y = np.full(3, value)
    assert metrics.nan_r2_score(y, y, sample_weight=weights) == 1
    assert metrics.nan_r2_score(y, 2 * y, sample_weight=weights) == 0
    assert metrics.nan_r2_score([*y, 9], [*y, 0], sample_weight=[1, 1, 1, 0]) == 1


@pytest.mark.parametrize("metric", METRICS)
def test_bad_values_raise_and_are_named(metric):
    good = np.array([1.0, 2.0, 3.0])
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="Input y_pred contains"):
            metric(good, [1.0, bad, 3.0])
    for bad in (np.inf, -np.inf):
        with pytest.raises(ValueError, match="Input y_true contains infinity"):
            metric([1.0, bad, 3.0], good)


@pytest.mark.parametrize("metric", METRICS)
def test_bad_shapes_and_options_raise(metric):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        metric([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="same number of targets; got 2 and 1"):
        metric(np.ones((3, 2)), np.ones(3))
    with pytest.raises(ValueError, match=r"multioutput must be .*; got 'mean'"):
        metric([1.0, 2.0], [1.0, 2.0], multioutput="mean")


def test_frames_and_nullable_dtypes_are_taken():
    y_true = pd.DataFrame({"rt": [1.0, None], "tp": [2.0, 4.0]}, dtype="Float64")
    assert metrics.nan_mean_absolute_error(y_true, [[2.0, 2.0], [9.0, 6.0]]) == 1.0


@pytest.mark.parametrize("unit", [1e-150, 1e-300, 1e150, 1e299])
def test_r2_and_rmse_know_no_unit(unit):
    rng = np.random.default_rng(0)
    y, prediction, weights = rng.normal(size=(3, 50))
    expected = r2_score(y, prediction, sample_weight=weights**2)
    found = metrics.finite_r2_score(unit * y, unit * prediction, weights**2)
    assert found == pytest.approx(expected, rel=1e-9)
    rmse = metrics.nan_root_mean_squared_error(unit * y, unit * prediction)
    assert rmse == pytest.approx(unit * metrics.nan_root_mean_squared_error(y, prediction))


def test_r2_is_finite_however_wrong_a_prediction_is():
    score = metrics.finite_r2_score(np.array([0.0, 1e-300]), np.full(2, 1e300))
    assert score == np.finfo(float).min
    assert metrics.finite_r2_score(np.ones(2), np.ones(2)) == 1.0
    assert metrics.finite_r2_score(np.ones(2), np.zeros(2)) == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_whole_weights_are_repeated_rows(targets, metric):
    y_true, y_pred = targets
    counts = np.random.default_rng(0).integers(0, 4, len(y_true))
    repeated = (np.repeat(part, counts, axis=0) for part in targets)
    found = metric(y_true, y_pred, sample_weight=counts, multioutput="raw_values")
    np.testing.assert_allclose(found, metric(*repeated, multioutput="raw_values"))
    assert metric(y_true, y_pred, sample_weight=counts) == pytest.approx(found.mean())
    assert metric(y_true, y_pred) != metric(y_true, y_pred, sample_weight=counts)


@pytest.mark.parametrize("metric", METRICS)
def test_a_target_of_weight_zero_is_not_observed(metric):
    y_true = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, np.nan], [7.0, np.nan]])
    weights = [0, 0, 1, 2]
    y_pred = np.nan_to_num(y_true) + 1
    found = metric(y_true, y_pred, sample_weight=weights, multioutput="raw_values")
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1], "sample_weight must be 0 or from"),
        ([0, 0], "all weights are zero"),
        ([1, 1, 1], "sample_weight has 3"),
        ([[1, 1], [1, 1]], "sample_weight must be 1-D"),
    ],
)
def test_bad_weights_raise(metric, weights, message):
    with pytest.raises(ValueError, match=message):
        metric([1.0, 2.0], [1.0, 3.0], sample_weight=weights)


def test_scorers_take_weights(qos):
    model = MedianRegressor().fit(qos.X, qos.y)
    weights = np.random.default_rng(0).integers(0, 4, len(qos.y))
    expected = metrics.nan_mean_absolute_error(qos.y, model.predict(qos.X), sample_weight=weights)
    scorer = make_scorer(metrics.nan_mean_absolute_error, greater_is_better=False)
    assert scorer(model, qos.X, qos.y, sample_weight=weights) == pytest.approx(-expected)
