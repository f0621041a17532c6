"""Weights of rows: repeated rows are what they mean, in every estimator (the contract)."""

import copy
import functools

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skqos import (
    R2SLRegressor,
    SAMoERegressor,
    SharpQoSRegressor,
    TPMCFRegressor,
    incremental,
    newcomers,
)
from skqos.base import BaseQoSRegressor
from skqos.baselines import (
    EmbeddingMLPRegressor,
    MedianRegressor,
    PMFRegressor,
    UIPCCRegressor,
)
from skqos.datasets import make_qos
from skqos.intervals import IntervalRegressor
from skqos.preprocessing import ContextJoiner
from tests.common import all_estimators, incremental_estimators

# Nothing is drawn for each row, and a batch holds all rows: what is left knows of repeated rows
# only what they weigh. Gradients of the absolute error cancel out to noise, which Adam scales up.
DETERMINISTIC = {"batch_size": 10**6, "loss": "squared_error", "max_epochs": 8}
WITHOUT_DRAWS = {
    SAMoERegressor: {"input_dropout": 0.0},
    EmbeddingMLPRegressor: {"input_dropout": 0.0},
    SharpQoSRegressor: {
        "feature_dropout": 0.0,
        "context_dropout": 0.0,
        "newcomer_share": 0.0,
        "routing": False,
        "n_blocks": 4,
        "cross_routing": False,
        "n_cross_blocks": 4,
    },
    R2SLRegressor: {"input_dropout": 0.0, "concentration": 5.0},
    TPMCFRegressor: {
        "newcomer_share": 0.0,
        "forecast_share": 0.0,
        "n_folds": None,
        # The weights of a second stage would depend on what the first has drawn.
        "modules": "pte",
    },
}
every_baseline = pytest.mark.parametrize(
    "baseline",
    [
        UIPCCRegressor(),
        PMFRegressor(regularization=2.0, max_iter=20, random_state=0),
        MedianRegressor(by="user"),
        MedianRegressor(by="pair"),
    ],
    ids=["UIPCC", "PMF", "user median", "pair median"],
)


@pytest.fixture
def qos(request):
    """Return a small data set, with times if the estimator under contract needs them."""
    if "contract" in request.fixturenames:
        return request.getfixturevalue("contract").make_data(16, 20, density=0.6)
    return make_qos(16, 20, density=0.6, random_state=0)


def joined(qos):
    return ContextJoiner(qos.users, qos.services).fit_transform(qos.X)


def weighted_rows(X, y):
    """Measure some pairs again, and draw weights from 0 to 3, 0 for all rows of a user."""
    X, y = pd.concat([X, X[:40]], ignore_index=True), np.r_[y, 3 * y[:40]]
    weights = np.random.default_rng(0).integers(0, 4, len(y))
    return X, y, np.where(X["user"] == X["user"][0], 0, weights)


def deterministic(contract, **params):
    without_draws = WITHOUT_DRAWS[contract.estimator_class]
    return contract.make(**{**DETERMINISTIC, **without_draws, **params})


def check_repeated(found, repeated, ignorant):
    """Compare predictions by weighted, by repeated and by rows that all weigh the same."""
    np.testing.assert_allclose(found, repeated, rtol=1e-3)
    error = np.abs(found - repeated).max()
    assert np.abs(ignorant - repeated).max() > 100 * error


# --- Weights and repeated rows ------------------------------------------------------------------


@all_estimators
def test_whole_weights_are_repeated_rows(contract, qos):
    X, y, weights = weighted_rows(joined(qos), qos.y)
    rows = np.repeat(np.arange(len(y)), weights)
    repeated = deterministic(contract).fit(X.iloc[rows], y[rows])
    weighted = deterministic(contract).fit(X, y, weights)
    ignorant = deterministic(contract).fit(X[weights > 0], y[weights > 0])
    assert X["user"][0] not in weighted.users_.ids_
    check_repeated(weighted.predict(X), repeated.predict(X), ignorant.predict(X))
    losses = (model.history_["train_loss"] for model in (weighted, repeated))
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_whole_weights_are_repeated_rows_to_a_graph_convolution():
    contract = next(c for c in all_estimators.args[1] if c.temporal)
    qos = contract.make_data(16, 20, density=0.6)
    X, y, weights = weighted_rows(joined(qos), qos.y)
    rows = np.repeat(np.arange(len(y)), weights)
    params = {"modules": "gcmf", "gcmf_epochs": 8}
    repeated = deterministic(contract, **params).fit(X.iloc[rows], y[rows])
    weighted = deterministic(contract, **params).fit(X, y, weights)
    ignorant = deterministic(contract, **params).fit(X[weights > 0], y[weights > 0])
    check_repeated(weighted.predict(X), repeated.predict(X), ignorant.predict(X))


@incremental_estimators
def test_whole_weights_are_repeated_rows_to_an_update(contract, qos, monkeypatch):
    """Of old and new rows: those of `fit` are replayed with the weights that they came with."""
    # The learning rate grows with the number of rows, whatever their weights; here to its limit.
    monkeypatch.setattr(incremental, "NEWCOMER_WEIGHT", 1.0)
    # One batch, however often rows are repeated.
    monkeypatch.setattr(newcomers, "BATCH_SIZE", 10_000)
    X, y, weights = weighted_rows(joined(qos), qos.y)
    rows = np.repeat(np.arange(len(y)), weights)

    def updated(X, y, weights):
        # Half of the rows is new, so that all the others are replayed.
        old = np.asarray(X["service"] % 2 == 0)
        model = deterministic(contract, partial_fit_epochs=8)
        parts = [(X[part], y[part], weights[part]) for part in (old, ~old)]
        return model.partial_fit(*parts[0]).partial_fit(*parts[1]).predict(qos_X)

    qos_X = joined(qos)
    repeated = updated(X.iloc[rows], y[rows], np.ones(len(rows)))
    ignorant = updated(X[weights > 0], y[weights > 0], np.ones((weights > 0).sum()))
    check_repeated(updated(X, y, weights), repeated, ignorant)


@every_baseline
def test_whole_weights_are_repeated_rows_to_baselines(baseline, qos):
    X, y, weights = weighted_rows(joined(qos), qos.y)
    rows = np.repeat(np.arange(len(y)), weights)
    repeated = clone(baseline).fit(X.iloc[rows], y[rows])
    weighted = clone(baseline).fit(X, y, sample_weight=weights)
    ignorant = clone(baseline).fit(X[weights > 0], y[weights > 0])
    assert X["user"][0] not in weighted.users_.ids_
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-12)
    assert (weighted.predict(X) != ignorant.predict(X)).any()


@all_estimators
def test_no_weights_are_weights_of_one(contract, qos):
    X = joined(qos)
    expected = contract.make(early_stopping="monitor").fit(X, qos.y)
    model = contract.make(early_stopping="monitor").fit(X, qos.y, np.ones(len(qos.y)))
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    same = ["train_loss", "valid_loss"]
    pd.testing.assert_frame_equal(model.history_[same], expected.history_[same])


def check_same(model, expected, X):
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    if model.intervals:
        np.testing.assert_array_equal(model.predict_interval(X), expected.predict_interval(X))


@all_estimators
def test_rows_of_weight_zero_are_not_there(contract, qos):
    X, kept = joined(qos), qos.X[:, 0] > 4
    has_intervals = contract.estimator_class is EmbeddingMLPRegressor
    params = {"early_stopping": "monitor", "intervals": has_intervals}
    expected = contract.make(**params).fit(X[kept], qos.y[kept])
    model = contract.make(**params).fit(X, qos.y, kept)
    check_same(model, expected, X)
    if hasattr(model, "partial_fit"):
        expected.partial_fit(X[kept][:20], qos.y[kept][:20])
        first = np.flatnonzero(kept)[19] + 1
        model.partial_fit(X[:first], qos.y[:first], sample_weight=kept[:first])
        check_same(model, expected, X)


def test_held_out_rows_weigh_in_the_validation_loss(qos, monkeypatch):
    splits = []
    original = BaseQoSRegressor._split_rows

    def spy(self, *args):
        splits.append(original(self, *args))
        return splits[-1]

    monkeypatch.setattr(BaseQoSRegressor, "_split_rows", spy)
    weights = np.random.default_rng(0).uniform(0.1, 10.0, len(qos.y))
    model = EmbeddingMLPRegressor(max_epochs=2, early_stopping="monitor", random_state=0)
    model.fit(qos.X, qos.y, weights)
    held_out = splits[0][1]
    transform = model._state.target_transform
    z = transform.transform(qos.y[held_out])
    predicted = transform.transform(model.predict(qos.X[held_out]))
    expected = np.average(np.abs(predicted - z), weights=weights[held_out])
    assert model.history_["valid_loss"].iloc[-1] == pytest.approx(expected, rel=1e-4)


def test_the_second_training_of_intervals_gets_the_weights_of_its_rows(qos, monkeypatch):
    learnt = []
    original = BaseQoSRegressor._learn

    def spy(self, rows, *args):
        learnt.append(rows)
        return original(self, rows, *args)

    monkeypatch.setattr(BaseQoSRegressor, "_learn", spy)
    weights = np.random.default_rng(0).uniform(0.1, 10.0, len(qos.y))
    EmbeddingMLPRegressor(max_epochs=1, intervals=True).fit(qos.X, qos.y, weights)
    first, second = learnt
    np.testing.assert_array_equal(first.weights, weights)
    assert len(second) < len(first)
    assert set(zip(second.y, second.weights, strict=True)) < set(zip(qos.y, weights, strict=True))


# --- Several targets, scores --------------------------------------------------------------------


def test_each_target_needs_an_observation_of_positive_weight():
    data = make_qos(10, 12, density=0.5, n_qos=2, random_state=0)
    model = SharpQoSRegressor(max_epochs=1, random_state=0)
    with pytest.raises(ValueError, match="an observation of y, column 1"):
        model.fit(data.X, data.y, np.isnan(data.y[:, 1]))
    weights = np.random.default_rng(0).integers(0, 3, len(data.y))
    model.fit(data.X, data.y, weights)
    model.partial_fit(data.X, data.y, np.isnan(data.y[:, 1]))
    assert np.isfinite(model.predict(data.X)).all()
    nothing = np.where(weights[:, None] > 0, np.nan, data.y)
    with pytest.raises(ValueError, match="sample_weight is 0 in every row with an observed y"):
        model.partial_fit(data.X, nothing, weights)


def test_the_score_of_several_targets_takes_weights():
    data = make_qos(10, 12, density=0.5, n_qos=2, random_state=0)
    model = SharpQoSRegressor(max_epochs=1, random_state=0).fit(data.X, data.y)
    weights = np.random.default_rng(0).uniform(0, 2, len(data.y))
    predicted, scores = model.predict(data.X), []
    for k in range(2):
        seen = ~np.isnan(data.y[:, k])
        true = data.y[seen, k]
        scores.append(r2_score(true, predicted[seen, k], sample_weight=weights[seen]))
    assert model.score(data.X, data.y, weights) == pytest.approx(np.mean(scores))
    assert model.score(data.X, data.y) != model.score(data.X, data.y, weights)


# --- Pipelines and searches ---------------------------------------------------------------------


@pytest.fixture
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def first_columns(X):
    return X[:, :2]


ROUTED = [
    EmbeddingMLPRegressor(max_epochs=1, random_state=0),
    SharpQoSRegressor(max_epochs=1, autoencoder_epochs=1, random_state=0),
    MedianRegressor(),
    IntervalRegressor(UIPCCRegressor(), random_state=0),
]
routed = pytest.mark.parametrize("estimator", ROUTED, ids=lambda e: type(e).__name__)


def request_weights(estimator):
    return (
        clone(estimator).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    )


@routed
@pytest.mark.usefixtures("_routing")
def test_weights_are_routed_through_pipelines_and_searches(estimator, qos):
    weights = np.random.default_rng(0).integers(0, 4, len(qos.y)).astype(float)
    pipeline = make_pipeline(FunctionTransformer(first_columns), request_weights(estimator))
    expected = clone(estimator).fit(qos.X, qos.y, sample_weight=weights)
    pipeline.fit(qos.X, qos.y, sample_weight=weights)
    np.testing.assert_array_equal(pipeline.predict(qos.X), expected.predict(qos.X))
    assert pipeline.score(qos.X, qos.y, sample_weight=weights) == pytest.approx(
        expected.score(qos.X, qos.y, sample_weight=weights)
    )
    results = cross_validate(
        pipeline, qos.X, qos.y, params={"sample_weight": weights}, cv=2, error_score="raise"
    )
    search = GridSearchCV(pipeline, {}, cv=2, error_score="raise")
    search.fit(qos.X, qos.y, sample_weight=weights)
    np.testing.assert_allclose(results["test_score"].mean(), search.best_score_)
    np.testing.assert_array_equal(search.predict(qos.X), expected.predict(qos.X))


def test_weights_go_to_a_step_without_routing(qos):
    weights = np.random.default_rng(0).integers(0, 4, len(qos.y))
    pipeline = make_pipeline(ContextJoiner(qos.users, qos.services), MedianRegressor(by="user"))
    pipeline.fit(qos.X, qos.y, medianregressor__sample_weight=weights)
    expected = MedianRegressor(by="user").fit(qos.X, qos.y, weights)
    np.testing.assert_array_equal(pipeline[-1].user_medians_, expected.user_medians_)


# --- Any regressor with intervals ---------------------------------------------------------------


def test_any_regressor_with_intervals_gets_the_weights(qos):
    weights = np.where(qos.X[:, 0] < 3, 0.0, np.random.default_rng(0).uniform(1, 2, len(qos.y)))
    kept = weights > 0
    boosting = HistGradientBoostingRegressor(max_iter=5, random_state=0)
    model = IntervalRegressor(boosting, random_state=0).fit(qos.X, qos.y, weights)
    expected = clone(boosting).fit(qos.X[kept], qos.y[kept], sample_weight=weights[kept])
    np.testing.assert_array_equal(model.predict(qos.X), expected.predict(qos.X))
    assert 0 not in model.users_.ids_
    as_lists = IntervalRegressor(boosting, random_state=0)
    as_lists.fit(qos.X.tolist(), list(qos.y), list(weights))
    np.testing.assert_array_equal(as_lists.predict_interval(qos.X), model.predict_interval(qos.X))


# --- Bad weights --------------------------------------------------------------------------------

BAD_WEIGHTS = {
    "negative": (lambda w: -w, r"sample_weight must be 0 or from 1e-30 to 1e\+30.*row 0 is -1.0"),
    "zero": (lambda w: 0 * w, "sample_weight must have a positive sum: all weights are zero"),
    "NaN": (lambda w: np.r_[w[:-1], np.nan], "Input sample_weight contains NaN"),
    "infinite": (lambda w: np.r_[w[:-1], np.inf], "Input sample_weight contains infinity"),
    "too small": (lambda w: 1e-40 * w, "sample_weight must be 0 or from 1e-30"),
    "too large": (lambda w: 1e40 * w, "sample_weight must be 0 or from 1e-30"),
    "two columns": (lambda w: np.c_[w, w], "sample_weight must be 1-D"),
    "short": (lambda w: w[:-1], r"sample_weight has \d+; they must be the same"),
}


@functools.cache
def fit_routed(number):
    """Return an estimator fitted to `qos`; no test changes it."""
    qos = make_qos(16, 20, density=0.6, random_state=0)
    return clone(ROUTED[number]).fit(qos.X, qos.y)


@pytest.mark.parametrize("case", BAD_WEIGHTS)
@routed
def test_bad_weights_raise_and_change_nothing(estimator, qos, case):
    change, message = BAD_WEIGHTS[case]
    weights = change(np.ones(len(qos.y)))
    model = copy.deepcopy(fit_routed(ROUTED.index(estimator)))
    state = model._state
    for method in ("fit", "partial_fit", "score"):
        if hasattr(model, method):
            with pytest.raises(ValueError, match=message):
                getattr(model, method)(qos.X, qos.y, sample_weight=weights)
            assert model._state is state
