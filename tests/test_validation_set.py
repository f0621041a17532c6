"""Validation rows that the caller gives: `fit(X, y, X_val=..., y_val=...)` (the contract)."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skqos import SharpQoSRegressor
from skqos.baselines import EmbeddingMLPRegressor
from skqos.datasets import make_qos
from skqos.preprocessing import ContextJoiner
from tests.common import all_estimators


@pytest.fixture
def qos(request):
    """Return a small data set, with times if the estimator under contract needs them."""
    if "contract" in request.fixturenames:
        return request.getfixturevalue("contract").make_data(16, 20, density=0.6)
    return make_qos(16, 20, density=0.6, random_state=0)


def halves(qos):
    """Return X, y, X_val, y_val; some users and services are in the latter alone."""
    X = ContextJoiner(qos.users, qos.services).fit_transform(qos.X)
    held_out = ((X["user"] < 3) | (X["service"] < 3)).to_numpy()
    return X[~held_out], qos.y[~held_out], X[held_out], qos.y[held_out]


@all_estimators
def test_validation_rows_change_the_validation_loss_and_nothing_else(contract, qos):
    X, y, X_val, y_val = halves(qos)
    plain = contract.make().fit(X, y)
    model = contract.make(early_stopping="monitor").fit(X, y, X_val=X_val, y_val=y_val)
    other = contract.make(early_stopping="monitor").fit(X, y, X_val=X_val[:9], y_val=9 * y_val[:9])
    for fitted in (model, other):
        np.testing.assert_array_equal(fitted.predict(X_val), plain.predict(X_val))
        assert fitted.history_["train_loss"].tolist() == plain.history_["train_loss"].tolist()
    losses = (fitted.history_["valid_loss"] for fitted in (model, other))
    assert (next(losses) != next(losses)).all()
    assert not model.is_known(X_val).all(axis=0).any()


@all_estimators
def test_validation_rows_end_training(contract, qos):
    X, y, X_val, y_val = halves(qos)
    params = {**contract.learning, "max_epochs": 40, "learning_rate_schedule": "constant"}
    model = contract.make(**params, early_stopping=True, n_iter_no_change=2)
    # What it learns of these rows is wrong from the second epoch on.
    model.fit(X, y, X_val=X_val, y_val=y_val[::-1])
    history = model.history_[model.history_["stage"] == "final"]
    best = int(history["valid_loss"].argmin())
    assert len(history) == model.n_iter_ == best + 3 < 40
    shorter = contract.make(**{**params, "max_epochs": best + 1}).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), shorter.predict(X))


def test_the_loss_is_that_of_predictions(qos):
    X, y, X_val, y_val = halves(qos)
    model = EmbeddingMLPRegressor(max_epochs=2, early_stopping="monitor", random_state=0)
    model.fit(X, y, np.random.default_rng(0).uniform(1, 9, len(y)), X_val=X_val, y_val=y_val)
    transform = model._state.target_transform
    errors = transform.transform(model.predict(X_val)) - transform.transform(y_val)
    found = model.history_["valid_loss"].iloc[-1]
    assert found == pytest.approx(np.abs(errors).mean(), rel=1e-5)


def test_intervals_with_validation_rows(qos):
    X, y, X_val, y_val = halves(qos)
    params = {"max_epochs": 2, "intervals": True, "random_state": 0}
    expected = EmbeddingMLPRegressor(**params).fit(X, y)
    model = EmbeddingMLPRegressor(**params, early_stopping="monitor")
    model.fit(X, y, X_val=X_val, y_val=y_val)
    np.testing.assert_array_equal(model.predict_interval(X_val), expected.predict_interval(X_val))


def test_validation_rows_of_several_targets():
    data = make_qos(12, 15, density=0.5, n_qos=2, random_state=0)
    model = SharpQoSRegressor(max_epochs=1, early_stopping="monitor", random_state=0)
    one = data.y[:20] * [1, np.nan]
    model.fit(data.X[20:], data.y[20:], X_val=data.X[:20], y_val=one)
    assert np.isfinite(model.history_["valid_loss"]).all()
    for y_val, message in (
        (one[:, 0], "y_val: y has shape"),
        (np.nan * one, "y_val: y is NaN in every entry"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(data.X[20:], data.y[20:], X_val=data.X[:20], y_val=y_val)


# --- Pipelines ----------------------------------------------------------------------------------


def test_a_pipeline_transforms_validation_rows(qos):
    X, y, X_val, y_val = halves(qos)
    held_out = np.isin(np.arange(len(qos.y)), X_val.index)
    with sklearn.config_context(enable_metadata_routing=True):
        model = EmbeddingMLPRegressor(max_epochs=3, early_stopping="monitor", random_state=0)
        expected = sklearn.clone(model).fit(X, y, X_val=X_val, y_val=y_val)
        pipeline = Pipeline(
            [
                ("context", ContextJoiner(qos.users, qos.services)),
                ("model", model.set_fit_request(X_val=True, y_val=True)),
            ],
            transform_input=["X_val"],
        )
        pipeline.fit(qos.X[~held_out], y, X_val=qos.X[held_out], y_val=y_val)
        columns = ["train_loss", "valid_loss"]
        pd.testing.assert_frame_equal(pipeline[-1].history_[columns], expected.history_[columns])
        assert pipeline[-1].users_.categorical_
        search = GridSearchCV(pipeline, {"model__max_epochs": [1, 2]}, cv=2, error_score="raise")
        search.fit(qos.X[~held_out], y, X_val=qos.X[held_out], y_val=y_val)
        assert np.isfinite(search.best_estimator_[-1].history_["valid_loss"]).all()


# --- Bad validation rows ------------------------------------------------------------------------

BAD = {
    "no y_val": (lambda X, y: (X, None), "X_val was given without y_val"),
    "no X_val": (lambda X, y: (None, y), "y_val was given without X_val"),
    "columns": (lambda X, y: (X.iloc[:, :5], y), "X_val: .*[Ff]eature names"),
    "array": (lambda X, y: (X.to_numpy()[:, :3], y), "X_val: X has 3 features"),
    "kind of ids": (
        lambda X, y: (X.assign(user=[f"u{u}" for u in X["user"]]), y),
        "X_val: user ids are of kind string",
    ),
    "missing id": (lambda X, y: (X.assign(user=np.nan), y), "X_val: .*every row needs an id"),
    "length": (lambda X, y: (X, y[1:]), r"X_val has \d+, y_val has \d+"),
    "NaN": (lambda X, y: (X, np.nan * y), "y_val: Input y contains NaN"),
    "two targets": (lambda X, y: (X, np.c_[y, y]), "y_val: y should be a 1d array"),
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("case", BAD)
def test_bad_validation_rows_raise_and_change_nothing(qos, case):
    X, y, X_val, y_val = halves(qos)
    change, message = BAD[case]
    model = EmbeddingMLPRegressor(max_epochs=1, early_stopping=True, random_state=0).fit(X, y)
    state = model._state
    X_val, y_val = change(X_val, y_val)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, X_val=X_val, y_val=y_val)
    assert model._state is state


@all_estimators
def test_validation_rows_without_a_use_raise(contract, qos):
    X, y, X_val, y_val = halves(qos)
    with pytest.raises(ValueError, match="X_val and y_val were given with early_stopping=False"):
        contract.make().fit(X, y, X_val=X_val, y_val=y_val)
