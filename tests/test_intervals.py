"""Quantiles, intervals and probabilities: what every estimator promises, and any regressor gets."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from skorch.callbacks import Callback

from skqos import SharpQoSRegressor
from skqos.baselines import EmbeddingMLPRegressor, MedianRegressor, UIPCCRegressor
from skqos.datasets import make_qos
from skqos.distribution.model import learn_intervals
from skqos.distribution.quantiles import LEVELS
from skqos.exceptions import EarlyTimeWarning
from skqos.intervals import IntervalRegressor
from skqos.metrics import interval_coverage, neg_winkler_scorer
from skqos.persistence import load_model, save_model
from skqos.preprocessing import ContextJoiner
from tests.common import CONTRACTS, all_estimators, incremental_estimators
from tests.wsdream_files import read_part

NEW = 4711
BY_NAME = {contract.estimator_class.__name__: contract for contract in CONTRACTS}


@pytest.fixture(scope="module")
def models():
    """Fit each estimator once, on ids alone."""
    fitted = {}

    def of(contract):
        name = contract.estimator_class.__name__
        if name not in fitted:
            data = contract.make_data(30, 40, density=0.5)
            fitted[name] = contract.make(intervals=True).fit(data.X, data.y), data
        return fitted[name]

    return of


# --- The estimators -----------------------------------------------------------------------------


def test_verbose_tells_the_two_trainings_apart(qos, capsys):
    model = EmbeddingMLPRegressor(
        max_epochs=1, embedding_dim=4, hidden_sizes=(8,), intervals=True, verbose=1, random_state=0
    )
    model.fit(qos.X, qos.y)
    parts = [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert parts == ["final", "intervals"]


@all_estimators
def test_predictions_are_those_without_intervals(contract, models):
    model, data = models(contract)
    alone = contract.make().fit(data.X, data.y)
    np.testing.assert_array_equal(model.predict(data.X), alone.predict(data.X))
    assert not clone(alone).intervals


@all_estimators
def test_quantiles_are_ordered_and_not_negative(contract, models):
    model, data = models(contract)
    pairs = contract.rows([[3, 5], [NEW, 5], [3, NEW], [NEW, NEW]])
    for X in (data.X, pairs):
        found = model.predict(X, quantiles=LEVELS)
        assert found.shape == (len(X), len(LEVELS))
        assert np.isfinite(found).all()
        assert (np.diff(found, axis=1) >= 0).all()
        assert found.min() >= 0


@all_estimators
def test_intervals_and_probabilities_are_read_off_the_quantiles(contract, models):
    model, data = models(contract)
    X = data.X[:50]
    interval = model.predict_interval(X, confidence_level=0.8)
    np.testing.assert_allclose(interval, model.predict(X, quantiles=[0.1, 0.9]))
    median = model.predict(X, quantiles=[0.5])[:, 0]
    for row in range(3):
        probability = model.predict_probability(X, limit=median[row])
        assert probability.shape == (50,)
        assert probability[row] == pytest.approx(0.5, abs=1e-6)


@all_estimators
def test_quantiles_through_a_pipeline_with_context(contract, qos):
    pipeline = make_pipeline(
        ContextJoiner(qos.users, qos.services), contract.make(intervals=True)
    ).fit(qos.X, qos.y)
    found = pipeline.predict(qos.X, quantiles=[0.05, 0.95])
    joined = pipeline[:-1].transform(qos.X)
    np.testing.assert_array_equal(found, pipeline[-1].predict(joined, quantiles=[0.05, 0.95]))
    assert neg_winkler_scorer(pipeline, qos.X, qos.y) < 0


@all_estimators
def test_fits_with_intervals_are_reproducible(contract, models):
    model, data = models(contract)
    again = clone(model).fit(data.X, data.y)
    for X in (data.X[:20], contract.rows([[NEW, 3]])):
        np.testing.assert_array_equal(
            again.predict(X, quantiles=[0.1, 0.9]), model.predict(X, quantiles=[0.1, 0.9])
        )


@all_estimators
def test_pickles_and_model_files_keep_intervals(contract, models, tmp_path):
    model, data = models(contract)
    save_model(model, tmp_path / "model.skqos")
    expected = model.predict(data.X, quantiles=[0.1, 0.9])
    for loaded in (load_model(tmp_path / "model.skqos"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(loaded.predict(data.X, quantiles=[0.1, 0.9]), expected)
        assert loaded.predict_probability(data.X, 1.0).shape == data.y.shape


@all_estimators
def test_without_intervals_an_error_says_how_to_get_them(contract, qos):
    model = contract.make().fit(qos.X, qos.y)
    for ask in (
        lambda: model.predict(qos.X, quantiles=[0.5]),
        lambda: model.predict_interval(qos.X),
        lambda: model.predict_probability(qos.X, 1.0),
    ):
        with pytest.raises(ValueError, match=r"fitted without intervals.*Set intervals=True"):
            ask()


@all_estimators
def test_callbacks_see_the_first_training_alone(contract, qos):
    epochs = []

    class Count(Callback):
        def on_epoch_end(self, net, **_):
            epochs.append(net.stage)

    counts = []
    for intervals in (False, True):
        epochs.clear()
        contract.make(intervals=intervals, callbacks=[Count()]).fit(qos.X, qos.y)
        counts.append(list(epochs))
    assert counts[0] == counts[1] != []


@pytest.mark.parametrize("early_stopping", [True, "monitor"])
def test_intervals_with_validation_rows(early_stopping):
    contract = BY_NAME["EmbeddingMLPRegressor"]
    # So few rows that some entities are in validation rows alone.
    data = contract.make_data(30, 40, density=0.1)
    model = contract.make(intervals=True, early_stopping=early_stopping).fit(data.X, data.y)
    assert np.isfinite(model.predict_interval(data.X)).all()


def test_several_targets():
    contract = BY_NAME["SharpQoSRegressor"]
    data = make_qos(30, 40, density=0.5, n_qos=2, random_state=0)
    model = contract.make(intervals=True).fit(data.X, data.y)
    found = model.predict(data.X, quantiles=[0.05, 0.5, 0.95])
    assert found.shape == (*data.y.shape, 3)
    assert (np.diff(found, axis=2) >= 0).all()
    limits = np.nanmedian(data.y, axis=0)
    each = model.predict_probability(data.X, limits)
    assert each.shape == data.y.shape
    np.testing.assert_array_equal(each[:, 0], model.predict_probability(data.X, limits[0])[:, 0])
    with pytest.raises(ValueError, match=r"limit must be a number, or one for each of 2 target"):
        model.predict_probability(data.X, [1.0, 2.0, 3.0])


def test_the_constant_target_has_narrow_intervals():
    contract = BY_NAME["EmbeddingMLPRegressor"]
    data = contract.make_data(30, 40, density=0.5)
    y = np.full(len(data.y), 3.0)
    low, high = contract.make(intervals=True).fit(data.X, y).predict_interval(data.X).T
    assert (high - low).max() < 1.0
    assert ((low <= 3.5) & (high >= 2.5)).all()


def test_too_few_rows_say_so():
    model = BY_NAME["EmbeddingMLPRegressor"].make(intervals=True)
    with pytest.raises(ValueError, match=r"a second training that holds out .* of n_samples=2"):
        model.fit([[0, 0], [1, 1]], [1.0, 2.0])
    assert not hasattr(model, "module_")


def test_intervals_cover_real_response_times(wsdream1_path):
    # Ids alone: a few seconds.
    train, test = read_part(wsdream1_path, "rt")
    model = EmbeddingMLPRegressor(
        intervals=True, n_members=1, hidden_sizes=(64, 32), max_epochs=8, random_state=0
    ).fit(train[:, :2].astype(int), train[:, 2])
    X, y = test[:, :2].astype(int), test[:, 2]
    intervals = model.predict_interval(X)
    assert 0.88 <= interval_coverage(y, intervals) <= 0.93
    by_tenth = interval_coverage(y, intervals, by=model.predict(X))
    assert by_tenth.min() > 0.84
    assert abs((y <= 1.0).mean() - model.predict_probability(X, 1.0).mean()) < 0.03


# --- Updates ------------------------------------------------------------------------------------


@incremental_estimators
def test_updates_take_new_errors_and_entities_in(contract, qos):
    model = contract.make(intervals=True).fit(qos.X[:500], qos.y[:500])
    X = np.concatenate([qos.X[500:], contract.rows([[NEW, 3], [3, NEW]])])
    y = np.append(qos.y[500:], [1.0, 2.0])
    before = model.predict(X, quantiles=[0.05, 0.95])
    n_before = len(model._fitted_intervals().targets[0].calibration.group)
    model.partial_fit(X, y)
    after = model._fitted_intervals().targets[0]
    assert len(after.calibration.group) == n_before + len(X)
    assert not after.users.are_unknown(model.users_.transform(np.array([NEW]), None)[0]).any()
    found = model.predict(X, quantiles=[0.05, 0.95])
    assert (found != before).any()
    assert (np.diff(found, axis=1) >= 0).all()


def test_updates_after_a_drift_widen_intervals():
    data = make_qos(40, 80, density=0.6, random_state=0)
    X, y = data.X, data.y
    rng = np.random.default_rng(0)
    model = EmbeddingMLPRegressor(
        intervals=True, max_epochs=10, n_members=1, hidden_sizes=(32, 16), random_state=0
    ).fit(X[:800], y[:800])
    # From now on measurements scatter.
    drifted = y * np.exp(1.2 * rng.normal(size=len(y)))

    def coverage():
        low, high = model.predict_interval(X[1600:]).T
        return ((drifted[1600:] >= low) & (drifted[1600:] <= high)).mean()

    before = coverage()
    model.partial_fit(X[800:1600], drifted[800:1600])
    assert before < 0.82
    assert coverage() > max(before + 0.04, 0.83)


# --- Searches and scoring -----------------------------------------------------------------------


def test_intervals_in_cross_validation_and_search(qos):
    model = BY_NAME["EmbeddingMLPRegressor"].make(intervals=True)
    scores = cross_validate(model, qos.X, qos.y, cv=2, scoring=neg_winkler_scorer)
    assert np.isfinite(scores["test_score"]).all()
    search = GridSearchCV(model, {"max_epochs": [1, 3]}, cv=2, scoring=neg_winkler_scorer)
    best = search.fit(qos.X, qos.y).best_estimator_
    assert best.predict(qos.X, quantiles=[0.5]).shape == (len(qos.y), 1)


# --- Any regressor ------------------------------------------------------------------------------


def _boosting(qos):
    return make_pipeline(
        ContextJoiner(qos.users[[]], qos.services[[]]),
        HistGradientBoostingRegressor(max_iter=30, random_state=0),
    )


@pytest.mark.parametrize(
    "make", [lambda _: UIPCCRegressor(), lambda _: MedianRegressor(), _boosting]
)
def test_intervals_around_any_regressor(make, qos):
    inner = make(qos)
    model = IntervalRegressor(inner, random_state=0).fit(qos.X[:450], qos.y[:450])
    alone = clone(inner).fit(qos.X[:450], qos.y[:450])
    np.testing.assert_array_equal(model.predict(qos.X), alone.predict(qos.X))
    low, high = model.predict_interval(qos.X[450:]).T
    assert ((qos.y[450:] >= low) & (qos.y[450:] <= high)).mean() == pytest.approx(0.9, abs=0.08)
    assert model.predict_probability(qos.X, 1.0).shape == qos.y.shape
    assert model.is_known([[3, 5], [NEW, 5], [3, NEW]]).tolist() == [
        [True, True],
        [False, True],
        [True, False],
    ]
    assert not hasattr(inner, "n_features_in_")


def test_any_regressor_is_an_estimator(qos, tmp_path):
    model = IntervalRegressor(UIPCCRegressor(n_neighbors=5), random_state=0)
    assert model.get_params()["estimator__n_neighbors"] == 5
    copy = clone(model).set_params(estimator__n_neighbors=3)
    assert (model.estimator.n_neighbors, copy.estimator.n_neighbors) == (5, 3)
    search = GridSearchCV(
        model, {"estimator__n_neighbors": [3, 10]}, cv=2, scoring=neg_winkler_scorer
    ).fit(qos.X, qos.y)
    best = search.best_estimator_
    save_model(best, tmp_path / "model.skqos")
    expected = best.predict(qos.X, quantiles=[0.1, 0.5])
    for loaded in (load_model(tmp_path / "model.skqos"), pickle.loads(pickle.dumps(best))):
        np.testing.assert_array_equal(loaded.predict(qos.X, quantiles=[0.1, 0.5]), expected)


def test_intervals_around_a_temporal_regressor():
    contract = BY_NAME["TPMCFRegressor"]
    data = contract.make_data(30, 40, density=0.5)
    X = pd.DataFrame(data.X, columns=contract.id_columns)
    model = IntervalRegressor(contract.make(), random_state=0).fit(X, data.y)
    assert np.isfinite(model.predict_interval(X)).all()
    with pytest.raises(ValueError, match="column 1 is named 'time'"):
        model.fit(X[["user", "time", "service"]], data.y)


def test_times_of_a_pair_are_held_out_apart(monkeypatch):
    """As by the estimator's own intervals: else no held-out cell would have a history."""
    contract = BY_NAME["TPMCFRegressor"]
    data = contract.make_data(30, 40, density=0.5)
    seen = []

    def spy(pairs, y, times, *arguments):
        seen.append(times)
        return learn_intervals(pairs, y, times, *arguments)

    monkeypatch.setattr("skqos.intervals.learn_intervals", spy)
    IntervalRegressor(contract.make(), random_state=0).fit(data.X, data.y)
    IntervalRegressor(MedianRegressor(), random_state=0).fit(data.X, data.y)
    times = pd.Timestamp("2026-05-01") + pd.to_timedelta(60 * data.X[:, 2] + data.X[:, 0], "min")
    stamps = pd.DataFrame(data.X[:, :2], columns=["user", "service"]).assign(time=times)
    IntervalRegressor(contract.make(time_step="1h"), random_state=0).fit(stamps, data.y)
    with_times, without, with_stamps = seen
    np.testing.assert_array_equal(with_times, data.X[:, 2])
    assert without is None
    np.testing.assert_array_equal(with_stamps, data.X[:, 2])


def test_intervals_around_several_targets():
    data = make_qos(30, 40, density=0.5, n_qos=2, random_state=0)
    contract = BY_NAME["SharpQoSRegressor"]
    model = IntervalRegressor(contract.make(), random_state=0).fit(data.X, data.y)
    assert isinstance(model.estimator_, SharpQoSRegressor)
    assert model.predict(data.X, quantiles=[0.1, 0.9]).shape == (*data.y.shape, 2)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[0, 1], [1, 0]], [1.0], "X has 2, y has 1"),
        ([[0], [1]], [1.0, 2.0], "X"),
        ([[0, 1], [1, 0]], [1.0, np.inf], "y"),
        ([[0, 1], [1, 0]], [[1.0, np.nan], [2.0, np.nan]], "y, column 1, is NaN in every row"),
        ([[0, 1], [1, 0]], [[[1.0]], [[2.0]]], "y"),
    ],
)
def test_bad_input_of_any_regressor(X, y, message):
    model = IntervalRegressor(MedianRegressor())
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    assert not hasattr(model, "estimator_")


def test_what_is_no_estimator_is_refused():
    with pytest.raises(ValueError, match="estimator"):
        IntervalRegressor(3).fit([[0, 1], [1, 0]], [1.0, 2.0])


class OwnTimes(RegressorMixin, BaseEstimator):
    """Warns of times that no training row has."""

    def fit(self, X, y):
        self.times_ = X[:, 2]
        return self

    def predict(self, X):
        if not np.isin(X[:, 2], self.times_).all():
            warnings.warn("early", EarlyTimeWarning, stacklevel=2)
        return np.ones(len(X))


def test_times_of_left_out_rows_are_no_reason_to_warn():
    """Warnings are errors in tests."""
    data = make_qos(15, 20, density=0.5, random_state=0)
    X = np.column_stack([data.X, np.arange(len(data.X))])
    model = IntervalRegressor(OwnTimes(), random_state=0).fit(X, data.y)
    with pytest.warns(EarlyTimeWarning):
        model.predict(np.array([[1, 2, -1]]))


class Means(RegressorMixin, BaseEstimator):
    """Predict the mean of each target over the rows in which it was measured."""

    def fit(self, X, y, sample_weight=None):
        self.names = getattr(y, "columns", None)
        measured = np.ma.masked_invalid(y)
        self.means = np.ma.average(measured, axis=0, weights=sample_weight).filled(np.nan)
        return self

    def predict(self, X):
        return np.tile(self.means, (len(X), 1)).astype(np.float32)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def test_several_targets_have_a_score():
    data = make_qos(20, 30, n_qos=2, density=0.5, random_state=0)
    model = IntervalRegressor(Means(), random_state=0)
    assert get_tags(model).target_tags.multi_output
    assert not get_tags(IntervalRegressor(MedianRegressor())).target_tags.multi_output
    model.fit(data.X, data.y)
    observed = data.y.copy()
    observed[::3, 1] = np.nan
    predicted = model.predict(data.X)
    assert predicted.dtype == np.float64
    kept = [~np.isnan(column) for column in observed.T]
    scores = [r2_score(observed[rows, k], predicted[rows, k]) for k, rows in enumerate(kept)]
    assert model.score(data.X, observed) == pytest.approx(np.mean(scores))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_the_regressor_receives_the_names_of_the_targets(weighted, package):
    data = make_qos(20, 30, n_qos=2, density=0.5, random_state=0)
    y = pytest.importorskip(package).DataFrame(dict(zip(["rt", "tp"], data.y.T, strict=True)))
    weights = np.arange(len(y)) % 3 if weighted else None
    model = IntervalRegressor(Means(), random_state=0).fit(data.X, y, weights)
    assert list(model.estimator_.names) == ["rt", "tp"]


@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_a_column_of_one_target_has_the_shape_of_the_predictions(qos):
    model = IntervalRegressor(MedianRegressor(), random_state=0).fit(qos.X, qos.y[:, None])
    assert model.predict(qos.X).shape == (len(qos.X),)
    assert model.predict(qos.X, quantiles=[0.1, 0.5, 0.9]).shape == (len(qos.X), 3)
    assert model.predict_interval(qos.X).shape == (len(qos.X), 2)
    assert model.predict_probability(qos.X, 1.0).shape == (len(qos.X),)


def test_frames_of_narwhals():
    narwhals = pytest.importorskip("narwhals")
    data = make_qos(20, 30, density=0.5, random_state=0)
    table = pd.DataFrame(data.X, columns=["user", "service"])
    model = IntervalRegressor(MedianRegressor(), random_state=0)
    expected = model.fit(table, data.y).predict_interval(table)
    found = model.fit(narwhals.from_native(table), data.y).predict_interval(table)
    np.testing.assert_array_equal(found, expected)
