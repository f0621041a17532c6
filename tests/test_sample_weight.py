"""Weights of rows: repeated rows are what they mean, in every estimator (the contract)."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor, TPMCFRegressor
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

# One batch and nothing that is drawn by row: what is left does not know how often rows are there
# but by their weight. Gradients of the absolute error cancel out to noise, which Adam scales up.
DETERMINISTIC = {"batch_size": 10**6, "loss": "squared_error"}
WITHOUT_DRAWS = {
    SAMoERegressor: {"input_dropout": 0.0},
    EmbeddingMLPRegressor: {"input_dropout": 0.0},
    SharpQoSRegressor: {
        "feature_dropout": 0.0,
        "context_dropout": 0.0,
        "newcomer_share": 0.0,
        "routing": False,
        "cross_routing": False,
    },
    R2SLRegressor: {"input_dropout": 0.0},
    TPMCFRegressor: {"newcomer_share": 0.0, "forecast_share": 0.0, "n_folds": None, "modules": "pte"},
}
BASELINES = [
    UIPCCRegressor(),
    PMFRegressor(regularization=2.0, max_iter=20, random_state=0),
    MedianRegressor(by="user"),
    MedianRegressor(by="pair"),
]
every_baseline = pytest.mark.parametrize(
    "baseline", BASELINES, ids=["UIPCC", "PMF", "user median", "pair median"]
)


def joined(qos):
    return ContextJoiner(qos.users, qos.services).fit_transform(qos.X)


def whole_numbers(n_rows):
    """Weights from 0 to 3, and 0 in all rows of a user."""
    return np.random.default_rng(0).integers(0, 4, n_rows)


def make_deterministic(contract, **params):
    kind = contract.estimator_class
    return contract.make(**{**DETERMINISTIC, **WITHOUT_DRAWS[kind], "max_epochs": 8, **params})


def with_repeated_pairs(X, y):
    """Measure some pairs again, so that their means matter."""
    return pd.concat([X, X[:60]], ignore_index=True), np.r_[y, 3 * y[:60]]


# --- Weights and repeated rows ------------------------------------------------------------------


@all_estimators
def test_whole_weights_are_repeated_rows(contract, qos):
    X, y = with_repeated_pairs(joined(qos), qos.y)
    weights = np.where(X["user"] == X["user"][0], 0, whole_numbers(len(y)))
    rows = np.repeat(np.arange(len(y)), weights)
    repeated = make_deterministic(contract).fit(X.iloc[rows], y[rows])
    weighted = make_deterministic(contract).fit(X, y, weights)
    ignorant = make_deterministic(contract).fit(X[weights > 0], y[weights > 0])
    assert X["user"][0] not in weighted.users_.ids_
    expected = repeated.predict(X)
    print(
        np.abs(weighted.predict(X) - expected).max(), np.abs(ignorant.predict(X) - expected).max()
    )
    np.testing.assert_allclose(weighted.predict(X), expected, rtol=1e-3)
    assert 1
    losses = weighted.history_["train_loss"]
    np.testing.assert_allclose(losses, repeated.history_["train_loss"], rtol=1e-4)
