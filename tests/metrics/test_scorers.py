"""Scorers in searches and cross-validation."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline

from skqos import metrics
from skqos.baselines import MedianRegressor
from skqos.preprocessing import ContextJoiner

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
    search = GridSearchCV(ObservedMean(), grid, scoring=SCORERS[name], cv=3)
    search.fit(np.zeros((60, 2)), y)
    assert search.best_params_ == {"factor": 1.0}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_survive_pickle(targets, name):
    X = np.zeros((60, 2))
    model = ObservedMean().fit(X, targets[0])
    loaded = pickle.loads(pickle.dumps(SCORERS[name]))
    assert loaded(model, X, targets[0]) == SCORERS[name](model, X, targets[0])


# --- Choices: users are column 0 of X -----------------------------------------------------------

CHOICES = {"regret": metrics.neg_choice_regret_scorer, "near best": metrics.near_best_scorer}


def test_choice_scorers_agree_with_the_metrics(qos):
    model = MedianRegressor(by="service")
    results = cross_validate(model, qos.X, qos.y, cv=3, scoring=CHOICES, return_indices=True)
    for k in range(3):
        train, test = results["indices"]["train"][k], results["indices"]["test"][k]
        pred = model.fit(qos.X[train], qos.y[train]).predict(qos.X[test])
        arguments = qos.y[test], pred, qos.X[test, 0]
        assert results["test_regret"][k] == -metrics.choice_regret(*arguments)
        assert results["test_near best"][k] == metrics.near_best_share(*arguments)


@pytest.mark.parametrize("name", CHOICES)
def test_a_search_that_optimises_the_choice(qos, name):
    """The median of the user chooses at random."""
    pipeline = make_pipeline(ContextJoiner(qos.users, qos.services), MedianRegressor())
    X = pd.DataFrame(qos.X, columns=["user", "service"])
    grid = {"medianregressor__by": ["user", "service", "constant"]}
    search = GridSearchCV(pipeline, grid, scoring=CHOICES[name], cv=3)
    search.fit(X, qos.y)
    assert search.best_params_ == {"medianregressor__by": "service"}
    by_user, _, constant = search.cv_results_["mean_test_score"]
    assert by_user == pytest.approx(constant)


@pytest.mark.parametrize(
    "make",
    [
        lambda X: X,
        lambda X: X.tolist(),
        lambda X: pd.DataFrame(X, columns=["user", "service"]),
        lambda X: pd.DataFrame(X.astype(str), index=range(9, 9 + len(X))),
        lambda X: pd.DataFrame(X).astype("category"),
    ],
    ids=["array", "list", "frame", "strings", "categories"],
)
def test_users_are_read_from_any_X(qos, make):
    X = make(qos.X)
    model = MedianRegressor().fit(X, qos.y)
    expected = metrics.near_best_share(qos.y, model.predict(X), qos.X[:, 0])
    assert metrics.near_best_scorer(model, X, qos.y) == expected


def test_options_of_choice_scorers(qos):
    model = MedianRegressor().fit(qos.X, qos.y)
    options = {"direction": "maximize", "n_services": 4, "n_draws": 3, "random_state": 5}
    for metric, sign in ((metrics.choice_regret, -1), (metrics.near_best_share, 1)):
        scorer = metrics.make_choice_scorer(metric, greater_is_better=sign > 0, **options)
        expected = sign * metric(qos.y, model.predict(qos.X), qos.X[:, 0], **options)
        assert scorer(model, qos.X, qos.y) == expected
        assert pickle.loads(pickle.dumps(scorer))(model, qos.X, qos.y) == expected


def test_choice_scorers_refuse_X_without_users(qos):
    model = MedianRegressor().fit(qos.X, qos.y)
    swapped = pd.DataFrame(qos.X, columns=["service", "user"])
    with pytest.raises(ValueError, match="column 0 is named 'service'"):
        metrics.near_best_scorer(model, swapped, qos.y)
    without_id = np.where(np.arange(len(qos.X))[:, None] == 2, np.nan, qos.X)
    with pytest.raises(ValueError, match=r"X, column 0 \(user\): row 2 is NaN"):
        metrics.near_best_scorer(model, without_id, qos.y)


# --- Intervals: predict takes quantiles ---------------------------------------------------------


class ObservedQuantiles(ObservedMean):
    """Predict quantiles of what was observed, widened by a factor."""

    def fit(self, X, y):
        self.y_ = np.asarray(y)
        return super().fit(X, y)

    def predict(self, X, quantiles=None):
        if quantiles is None:
            return super().predict(X)
        assert quantiles == [0.05, 0.95]
        found = self.factor * np.moveaxis(np.nanquantile(self.y_, quantiles, axis=0), 0, -1)
        return np.broadcast_to(found, (len(X), *found.shape))


@pytest.mark.parametrize("n_targets", [1, 3])
def test_a_search_that_optimises_intervals(targets, n_targets):
    y = targets[0][:, 0] if n_targets == 1 else targets[0]
    y = np.nan_to_num(y, nan=0.5) if n_targets == 1 else y
    X = np.zeros((60, 2))
    search = GridSearchCV(
        make_pipeline(ObservedQuantiles()),
        {"observedquantiles__factor": [0.3, 1.0, 9.0]},
        scoring=metrics.neg_winkler_scorer,
        cv=3,
    ).fit(X, y)
    assert search.best_params_ == {"observedquantiles__factor": 1.0}
    best = search.best_estimator_
    expected = -metrics.winkler_score(y, best.predict(X, quantiles=[0.05, 0.95]))
    assert metrics.neg_winkler_scorer(best, X, y) == expected


def test_the_interval_scorer_survives_pickle(targets):
    X, y = np.zeros((60, 2)), targets[0]
    model = ObservedQuantiles().fit(X, y)
    loaded = pickle.loads(pickle.dumps(metrics.neg_winkler_scorer))
    assert loaded(model, X, y) == metrics.neg_winkler_scorer(model, X, y)
