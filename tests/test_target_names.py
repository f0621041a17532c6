"""Names of the columns of y: read from frames of any package, and compared after `fit`."""

import numpy as np
import pandas as pd
import pytest

from skqos import SharpQoSRegressor
from skqos.datasets import make_qos
from skqos.inspection import (
    GroupErrorDisplay,
    IntervalCoverageDisplay,
    PredictionIntervalDisplay,
    ProbabilityCalibrationDisplay,
)
from skqos.intervals import IntervalRegressor
from tests.common import CONTRACTS

MAKE = next(one.make for one in CONTRACTS if one.estimator_class is SharpQoSRegressor)
NAMES = ["rt", "tp"]


@pytest.fixture(scope="module")
def data():
    return make_qos(12, 15, density=0.5, n_qos=2, random_state=0)


@pytest.fixture(scope="module")
def model(data):
    regressor = IntervalRegressor(MAKE(max_epochs=1), random_state=0)
    return regressor.fit(data.X, pd.DataFrame(data.y, columns=NAMES))


USES = {
    "score": lambda model, X, y: model.score(X, y),
    "errors": lambda model, X, y: GroupErrorDisplay.from_estimator(
        model, X, y, user_groups=X[:, 0], target=0
    ),
    "coverage": lambda model, X, y: IntervalCoverageDisplay.from_estimator(
        model, X, y, target=0, n_bands=1
    ),
    "intervals": lambda model, X, y: PredictionIntervalDisplay.from_estimator(
        model, X, y, target=0
    ),
    "probability": lambda model, X, y: ProbabilityCalibrationDisplay.from_estimator(
        model, X, y, limit=1.0, target=0
    ),
}


@pytest.mark.parametrize("use", USES)
def test_columns_in_another_order_are_refused(model, data, use):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    y = pd.DataFrame(data.y, columns=NAMES)
    USES[use](model, data.X, y)
    pyplot.close("all")
    with pytest.raises(ValueError, match=r"y has the columns \['tp', 'rt'\], but in fit it had"):
        USES[use](model, data.X, y[["tp", "rt"]])


@pytest.mark.parametrize("package", ["pyarrow", "polars", "narwhals"])
def test_names_of_frames_of_other_packages(data, package):
    module = pytest.importorskip(package)

    def convert(frame):
        if package == "pyarrow":
            return module.Table.from_pandas(frame)
        return module.from_pandas(frame) if package == "polars" else module.from_native(frame)

    y = pd.DataFrame(data.y, columns=NAMES)
    model = MAKE(max_epochs=1).fit(data.X, convert(y))
    assert model.target_names_in_.tolist() == NAMES
    for use in (model.score, model.partial_fit):
        with pytest.raises(ValueError, match="y has the columns"):
            use(data.X, convert(y[["tp", "rt"]]))
    for wrong, message in ((np.nan, r"column 1 \(tp\) is NaN"), (np.inf, r"column 1 \(tp\)")):
        with pytest.raises(ValueError, match=message):
            MAKE().fit(data.X, convert(y.assign(tp=wrong)))
