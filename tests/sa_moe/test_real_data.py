"""SA-MoE on the 2.5 % splits of WS-DREAM data set 1, small and short."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from skqos import SAMoERegressor
from skqos.datasets import load_wsdream
from skqos.preprocessing import ContextJoiner
from tests.wsdream_files import read_part


@pytest.mark.parametrize("qos", ["rt", "tp"])
def test_a_small_network_beats_the_service_median(wsdream1_path, qos):
    train, test = read_part(wsdream1_path, qos, part=1)
    data = load_wsdream(wsdream1_path, qos=qos)
    model = make_pipeline(
        ContextJoiner(data.users, data.services),
        SAMoERegressor(
            refill_ratio=0,
            pseudo_label_ratio=0,
            embedding_dim=8,
            tower_dim=32,
            mlp_hidden_sizes=(64, 32),
            max_epochs=3,
            learning_rate=0.02,
            batch_size=512,
            random_state=0,
        ),
    )
    X, y = train[:, :2].astype(int), train[:, 2]
    prediction = model.fit(X, y).predict(test[:, :2].astype(int))
    medians = pd.Series(y).groupby(X[:, 1]).median().reindex(test[:, 1]).fillna(np.median(y))
    error = np.abs(prediction - test[:, 2]).mean()
    baseline = np.abs(medians.to_numpy() - test[:, 2]).mean()
    assert error < 0.8 * baseline
    assert (prediction >= -0.05 * y.max()).all()
