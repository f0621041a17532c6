"""Names of the columns of a DataFrame y: kept by `fit`, and used where targets are named."""

import pandas as pd
import pytest

from skqos import SharpQoSRegressor
from skqos.datasets import make_qos
from skqos.inspection import TrainingHistoryDisplay
from skqos.persistence import load_model, save_model
from skqos.selection import rank_services
from tests.common import CONTRACTS

MAKE = next(one.make for one in CONTRACTS if one.estimator_class is SharpQoSRegressor)


@pytest.fixture(scope="module")
def data():
    return make_qos(12, 15, density=0.5, n_qos=2, random_state=0)


@pytest.fixture(scope="module")
def model(data):
    y = pd.DataFrame(data.y, columns=["response time", "throughput"])
    return MAKE().fit(data.X, y)


def test_names_are_kept_by_files_and_updates(model, data, tmp_path):
    save_model(model, tmp_path / "model.skqos")
    loaded = load_model(tmp_path / "model.skqos")
    loaded.partial_fit(data.X[:9], data.y[:9])
    assert loaded.target_names_in_.tolist() == ["response time", "throughput"]
    assert "targets response time and throughput" in loaded._repr_html_()


@pytest.mark.parametrize("columns", [[0, 1], ["rt", 1]])
def test_other_names_are_not_kept(columns, data):
    model = MAKE(max_epochs=1).fit(data.X, pd.DataFrame(data.y, columns=columns))
    assert not hasattr(model, "target_names_in_")
    assert "prediction_1" in rank_services(model, 1)


def test_rankings_and_displays_use_them(model):
    ranking = rank_services(model, [1, 2])
    assert {"prediction_response time", "prediction_throughput"} < set(ranking)
    assert "prediction_tp" in rank_services(model, 1, target_names=["rt", "tp"])
    pyplot = pytest.importorskip("matplotlib.pyplot")
    display = TrainingHistoryDisplay.from_estimator(model, kind="task_loss")
    labels = [text.get_text() for text in display.axes_[0].get_legend().get_texts()]
    pyplot.close(display.figure_)
    assert labels == ["response time", "throughput"]
