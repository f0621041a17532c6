"""TPMCF on a part of WS-DREAM data set 2, where it is present: fits in seconds, beats medians."""

import numpy as np
import pandas as pd
import pytest

from skqos import TPMCFRegressor
from skqos.datasets import load_wsdream


@pytest.fixture(scope="module")
def part(wsdream2_path):
    """Every eighteenth service in the last four slots; half of the cells train."""
    data = load_wsdream(wsdream2_path, qos="rt")
    kept = (data.X[:, 2] >= 60) & (data.X[:, 1] % 18 == 0)
    X, y = data.X[kept], data.y[kept]
    train = np.random.default_rng(0).random(len(y)) < 0.5
    return X[train], y[train], X[~train], y[~train]


def _median_error(X, y, X_test, y_test):
    """Of the median of the service's training values, else of all."""
    medians = pd.Series(y).groupby(X[:, 1]).median()
    prediction = medians.reindex(X_test[:, 1]).fillna(np.median(y)).to_numpy()
    return np.abs(prediction - y_test).mean()


def test_other_cells_of_the_same_slots(part):
    X, y, X_test, y_test = part
    model = TPMCFRegressor(max_epochs=6, gcmf_epochs=10, window=4, random_state=0).fit(X, y)
    error = np.abs(model.predict(X_test) - y_test).mean()
    assert error < 0.9 * _median_error(X, y, X_test, y_test)


def test_a_slot_ahead(part):
    X, y, X_test, y_test = part
    before, last = X[:, 2] < 63, X_test[:, 2] == 63
    model = TPMCFRegressor(max_epochs=6, gcmf_epochs=10, window=3, random_state=0)
    model.fit(X[before], y[before])
    error = np.abs(model.predict(X_test[last]) - y_test[last]).mean()
    assert error < _median_error(X[before], y[before], X_test[last], y_test[last])
