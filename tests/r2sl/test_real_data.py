"""R2SL on the 2.5 % splits of WS-DREAM data set 1, small and short."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from skqos import R2SLRegressor
from skqos.datasets import load_wsdream
from skqos.preprocessing import ContextJoiner
from tests.wsdream_files import read_part


@pytest.mark.parametrize("qos", ["rt", "tp"])
def test_a_small_network_beats_the_service_median(wsdream1_path, qos):
    train, test = read_part(wsdream1_path, qos)
    data = load_wsdream(wsdream1_path, qos=qos)
    columns = ["country", "as"]
    model = make_pipeline(
        ContextJoiner(data.users[columns], data.services[columns]),
        R2SLRegressor(
            region_features=["country"],
            n_states=2,
            embedding_dim=16,
            n_filters=1,
            hidden_size=64,
            max_epochs=5,
            learning_rate=0.02,
            batch_size=256,
            random_state=0,
        ),
    )
    X, y = train[:, :2].astype(int), train[:, 2]
    prediction = model.fit(X, y).predict(test[:, :2].astype(int))
    medians = pd.Series(y).groupby(X[:, 1]).median().reindex(test[:, 1]).fillna(np.median(y))
    error = np.abs(prediction - test[:, 2]).mean()
    baseline = np.abs(medians.to_numpy() - test[:, 2]).mean()
    assert error < 0.8 * baseline
    assert model[-1].latent_state_models_["country"].mismatch_ > 5
