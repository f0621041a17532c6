"""SHARP-QoS, of one member, on qos3: three QoS parameters of 150 users and 76 services."""

import numpy as np
import pandas as pd
import pytest

from skqos import SharpQoSRegressor
from skqos.metrics import nan_mean_absolute_error
from tests.conftest import DATA

QOS = ["ResponseTime", "Throughput", "Reliability"]
CONTEXT = ["Region", "AS", "Subnet"]


@pytest.fixture(scope="module")
def qos3():
    """Return ids with context, and values, one of them infinite."""
    path = DATA / "qos3" / "qos3.tsv"
    if not path.is_file():
        pytest.skip("needs the data set qos3; set SKQOS_DATA to the folder that holds qos3/")
    frame = pd.read_csv(path, sep="\t")
    names = {
        f"{side.capitalize()}{name}": f"{side}_{name}"
        for side in ("user", "service")
        for name in CONTEXT
    }
    return frame[["UserID", "ServiceID", *names]].rename(columns=names), frame[QOS]


def test_the_infinite_value_is_named(qos3):
    X, y = qos3
    row = int(np.flatnonzero(np.isinf(y["Throughput"]))[0])
    with pytest.raises(ValueError, match=rf"column 1 \(Throughput\): row {row} is inf; .* NaN for"):
        SharpQoSRegressor().fit(X, y)


def test_three_parameters_beat_the_service_median(qos3):
    """Trained on 30 % of the pairs; the infinite value is not observed."""
    X, y = qos3
    y = y.replace(np.inf, np.nan)
    assert y.isna().to_numpy().sum() == 1
    train = np.random.default_rng(0).permutation(len(X)) < 0.3 * len(X)
    model = SharpQoSRegressor(n_members=1, random_state=0).fit(X[train], y[train])
    prediction = model.predict(X[~train])
    medians = y[train].groupby(X.loc[train, "ServiceID"]).median()
    baseline = medians.reindex(X.loc[~train, "ServiceID"]).fillna(y[train].median())
    errors, baselines = (
        nan_mean_absolute_error(y[~train], found, multioutput="raw_values")
        for found in (prediction, baseline)
    )
    assert (errors < baselines).all()
