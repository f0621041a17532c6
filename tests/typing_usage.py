"""A user's script, which mypy reads and nobody runs: results have types, wrong choices are errors.

mypy fails where an error that is expected here (``type: ignore``) does not occur.
"""

from typing import assert_type

import numpy as np
import pandas as pd

import skqos
from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor, TPMCFRegressor
from skqos.baselines import EmbeddingMLPRegressor, MedianRegressor, UIPCCRegressor
from skqos.datasets import make_qos
from skqos.entities import EntityEncoder
from skqos.export import OnnxPredictor, to_onnx
from skqos.inspection import GroupErrorDisplay, TrainingHistoryDisplay
from skqos.intervals import IntervalRegressor
from skqos.metrics import nan_mean_absolute_error
from skqos.model_selection import DensitySplit
from skqos.persistence import load_model, save_model
from skqos.preprocessing import ContextJoiner
from skqos.selection import rank_services

data = make_qos(20, 30, density=0.3, random_state=0)

model = SAMoERegressor(loss="huber", early_stopping="monitor", intervals=True, random_state=0)
assert_type(model.fit(data.X, data.y), SAMoERegressor)
assert_type(model.predict([[3, 17]]), np.ndarray)
assert_type(model.predict([[3, 17]], quantiles=[0.1, 0.9]), np.ndarray)
assert_type(model.predict_interval([[3, 17]]), np.ndarray)
assert_type(model.predict_probability([[3, 17]], 0.5), np.ndarray)
assert_type(model.is_known([[3, 17]]), np.ndarray)
assert_type(model.score(data.X, data.y), float)
assert_type(model.partial_fit(data.X, data.y), SAMoERegressor)
assert_type(model.users_, EntityEncoder)
assert_type(model.history_, pd.DataFrame)
assert_type(model.n_iter_, int)
model.n_iter_ = 3  # type: ignore[assignment]

SAMoERegressor(loss="hubber")  # type: ignore[arg-type]
SAMoERegressor(experts=["mlp", "cnn"])  # type: ignore[list-item]
SAMoERegressor(batch_size="all")  # type: ignore[arg-type]
SAMoERegressor(epochs=3)  # type: ignore[call-arg]
R2SLRegressor(rate="printed", loss="e_huber", target_transform=None)
R2SLRegressor(optimizer="sgd")  # type: ignore[arg-type]
SharpQoSRegressor(convolution="hhgcn", task_weighting="dwa")
SharpQoSRegressor(convolution="gat")  # type: ignore[arg-type]
TPMCFRegressor(modules="both", time_step="15min", target_steps="last")
TPMCFRegressor(temporal="rnn")  # type: ignore[arg-type]
EmbeddingMLPRegressor(learning_rate_schedule="constant")
MedianRegressor(by="week")  # type: ignore[arg-type]

joiner = ContextJoiner(data.users, data.services).fit(data.X)
assert_type(IntervalRegressor(UIPCCRegressor()).fit(data.X, data.y), IntervalRegressor)
assert_type(rank_services(model, users=[3], n=2), pd.DataFrame)
rank_services(model, users=3, direction="smallest")  # type: ignore[arg-type]
nan_mean_absolute_error(data.y, model.predict(data.X))
for train, _ in DensitySplit(2, density=0.1, unit="row").split(data.X):
    model.fit(data.X[train], data.y[train])

save_model(model, "model.skqos")
load_model("model.skqos")
to_onnx(model, "model.onnx")
assert_type(OnnxPredictor("model.onnx").predict([[3, 17]]), np.ndarray)
assert_type(TrainingHistoryDisplay.from_estimator(model), TrainingHistoryDisplay)
assert_type(
    GroupErrorDisplay.from_estimator(model, data.X, data.y, user_groups="user_country"),
    GroupErrorDisplay,
)
skqos.metrics.outlier_mask(data.y)
skqos.no_such_name()  # type: ignore[attr-defined]
