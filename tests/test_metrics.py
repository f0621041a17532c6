"""NaN-aware metrics against scikit-learn's, their scorers in a search, and the outlier protocol."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import IsolationForest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import GridSearchCV, cross_validate

from skqos import metrics

PAIRS = [
    (metrics.nan_mean_absolute_error, mean_absolute_error),
    (metrics.nan_root_mean_squared_error, root_mean_squared_error),
    (metrics.nan_r2_score, r2_score),
]
METRICS = [*(ours for ours, _ in PAIRS), metrics.nan_normalized_mean_absolute_error]
SCORERS = {
    "mae": metrics.neg_nan_mae_scorer,
    "rmse": metrics.neg_nan_rmse_scorer,
    "nmae": metrics.neg_nan_nmae_scorer,
    "r2": metrics.nan_r2_scorer,
}


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
    with pytest.raises(ValueError, match="y_true: no target has the"):
        metric(np.full((4, 2), np.nan), np.zeros((4, 2)))


def test_r2_needs_two_observations_and_takes_constants():
    y_true = np.array([[1.0, 5.0, 5.0], [2.0, np.nan, 5.0], [3.0, np.nan, 5.0]])
    y_pred = np.array([[1.0, 5.0, 5.0], [2.0, 5.0, 5.0], [3.0, 5.0, 4.0]])
    raw = metrics.nan_r2_score(y_true, y_pred, multioutput="raw_values")
    np.testing.assert_array_equal(raw, [1.0, np.nan, 0.0])
    assert metrics.nan_r2_score(y_true, y_pred) == 0.5
    with pytest.raises(ValueError, match=r"no target has the 2 observed value\(s\)"):
        metrics.nan_r2_score([1.0, np.nan], [1.0, 1.0])


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


class ObservedMean(RegressorMixin, BaseEstimator):
    """Predict the mean of what was observed of each target, times a factor."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def fit(self, X, y):
        self.mean_ = np.nanmean(y, axis=0) * self.factor
        return self

    def predict(self, X):
        return np.tile(self.mean_, (len(X), 1))


def test_scorers_agree_with_the_metrics(targets):
    y = targets[0]
    X = np.zeros((60, 2))
    results = cross_validate(ObservedMean(), X, y, cv=3, scoring=SCORERS, return_indices=True)
    test = results["indices"]["test"][0]
    train = results["indices"]["train"][0]
    pred = np.tile(np.nanmean(y[train], axis=0), (20, 1))
    expected = {
        "mae": -metrics.nan_mean_absolute_error(y[test], pred),
        "rmse": -metrics.nan_root_mean_squared_error(y[test], pred),
        "nmae": -metrics.nan_normalized_mean_absolute_error(y[test], pred),
        "r2": metrics.nan_r2_score(y[test], pred),
    }
    for name, value in expected.items():
        assert results[f"test_{name}"][0] == pytest.approx(value)


@pytest.mark.parametrize("name", SCORERS)
def test_search_with_unobserved_targets_finds_the_best(targets, name):
    y = targets[0] + 50
    grid = {"factor": [3.0, 1.0, 0.0]}
    search = GridSearchCV(ObservedMean(), grid, scoring=SCORERS[name], cv=3, n_jobs=2)
    search.fit(np.zeros((60, 2)), y)
    assert search.best_params_ == {"factor": 1.0}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_survive_pickle(targets, name):
    X = np.zeros((60, 2))
    model = ObservedMean().fit(X, targets[0])
    loaded = pickle.loads(pickle.dumps(SCORERS[name]))
    assert loaded(model, X, targets[0]) == SCORERS[name](model, X, targets[0])


class TestOutlierMask:
    def test_share_and_place_of_the_flagged(self):
        rng = np.random.default_rng(0)
        y = np.append(rng.uniform(0.1, 0.5, 190), rng.uniform(5, 20, 10))
        mask = metrics.outlier_mask(y, contamination=0.05)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, y > 1)

    def test_unobserved_is_never_flagged_and_changes_nothing(self):
        rng = np.random.default_rng(0)
        y = rng.exponential(size=200)
        with_gaps = np.insert(y, np.arange(0, 200, 4), np.nan)
        mask = metrics.outlier_mask(with_gaps)
        assert not mask[np.isnan(with_gaps)].any()
        np.testing.assert_array_equal(mask[~np.isnan(with_gaps)], metrics.outlier_mask(y))

    def test_targets_are_treated_one_by_one(self):
        rng = np.random.default_rng(0)
        y = rng.exponential(size=(200, 3)) * [1, 100, np.nan]
        mask = metrics.outlier_mask(y)
        assert mask.shape == (200, 3)
        for target in range(2):
            np.testing.assert_array_equal(mask[:, target], metrics.outlier_mask(y[:, target]))
        assert not mask[:, 2].any()

    def test_seed_and_contamination(self):
        y = np.random.default_rng(0).exponential(size=500)
        first = metrics.outlier_mask(y, max_samples=64)
        np.testing.assert_array_equal(first, metrics.outlier_mask(y, max_samples=64))
        other = metrics.outlier_mask(y, max_samples=64, random_state=0)
        assert not np.array_equal(first, other)
        assert metrics.outlier_mask(y, contamination=0.02).mean() == pytest.approx(0.02, abs=0.005)

    @pytest.mark.parametrize("max_samples", ["all", "auto"])
    def test_it_is_the_isolation_forest_where_values_repeat(self, max_samples):
        y = np.random.default_rng(0).exponential(size=2000).round(1)
        forest = IsolationForest(
            contamination=0.07,
            max_samples=len(y) if max_samples == "all" else max_samples,
            random_state=3,
        )
        expected = forest.fit_predict(y[:, np.newaxis]) == -1
        mask = metrics.outlier_mask(y, contamination=0.07, max_samples=max_samples, random_state=3)
        np.testing.assert_array_equal(mask, expected)
        assert 0 < mask.sum() < 200

    @pytest.mark.parametrize(
        ("params", "match"),
        [
            ({"contamination": 0.0}, r"contamination must be a float in \(0, 0.5\]; got 0.0"),
            ({"contamination": 0.6}, "contamination must be"),
            ({"contamination": "auto"}, "contamination must be"),
            ({"max_samples": 0}, "max_samples must be 'all', 'auto' or an int >= 1; got 0"),
            ({"max_samples": 0.5}, "max_samples must be"),
            ({"max_samples": "half"}, "max_samples must be"),
        ],
    )
    def test_bad_parameters_raise(self, params, match):
        with pytest.raises(ValueError, match=match):
            metrics.outlier_mask([1.0, 2.0], **params)

    def test_infinity_raises(self):
        with pytest.raises(ValueError, match="Input y contains infinity"):
            metrics.outlier_mask([1.0, np.inf])


@pytest.fixture(scope="module")
def values(wsdream1_path):
    matrix = pd.read_csv(wsdream1_path / "rtMatrix.txt", sep="\t", header=None).to_numpy()
    return np.random.default_rng(0).choice(matrix[matrix > 0], 30_000, replace=False)


@pytest.fixture(scope="module")
def mask(values):
    return metrics.outlier_mask(values)


class TestOutlierProtocolOnResponseTimes:
    """The facts known of WS-DREAM data set 1 under contamination 0.1, on 30,000 of its values."""

    def test_a_tenth_goes_and_the_error_of_the_median_collapses(self, values, mask):
        error = np.abs(values - np.median(values))
        assert mask.mean() == pytest.approx(0.1, abs=0.002)
        assert error.mean() == pytest.approx(0.75, abs=0.02)
        assert error[~mask].mean() == pytest.approx(0.29, abs=0.01)

    def test_it_is_no_filter_of_extreme_values(self, values, mask):
        mid_range = (values >= 1.75) & (values < 5.1)
        island = (values >= 5.2) & (values < 5.7)
        assert mask[mid_range].mean() > 0.97
        # From 0.24 to 0.65 over five draws of the values; a bound would flag all of it.
        assert mask[island].mean() < 0.8
        assert mask[values > 5.8].mean() > 0.97
        assert mask[values < 0.0125].mean() > 0.97

    def test_few_samples_per_tree_cut_at_a_bound(self, values):
        mask = metrics.outlier_mask(values, max_samples=256)
        bound = values[~mask].max()
        assert 1.6 < bound < 1.8
        assert mask[values > bound].all()
        assert mask[values < 1.6].mean() < 0.005


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
