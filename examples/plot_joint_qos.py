"""
Two QoS parameters at once
==========================

Response time and throughput of the same services: `SharpQoSRegressor` predicts both from rows in
which most often only one was measured. What do the tasks share, and do they get in each other's
way?
"""

# %%
# Measurements
# ------------
# Users and services that were made up, with a country and an autonomous system each. A row of ``y``
# holds response time (s) and throughput (kbps); NaN stands for "not measured".

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

from skqos import SharpQoSRegressor
from skqos.datasets import make_qos
from skqos.inspection import GateProbabilityDisplay, TrainingHistoryDisplay
from skqos.metrics import nan_mean_absolute_error
from skqos.preprocessing import ContextJoiner

QOS = ["response time, s", "throughput, kbps"]
NAMES = ["response time", "throughput"]
data = make_qos(60, 200, density=0.4, n_qos=2, missing_rate=0.5, random_state=0)
seen_at_all = ~np.isnan(data.y).all(axis=1)
X, y = data.X[seen_at_all], data.y[seen_at_all]
train = np.random.default_rng(0).random(len(y)) < 0.5
print(pd.DataFrame(y[:4], columns=QOS))

# %%
# Joint and alone
# ---------------
# The same estimator, once for both parameters and once for each. A two-dimensional ``y`` is all
# that joint prediction takes. A high learning rate, and twice the usual penalty on open gates, move
# the gates far in a short training.


def fit(y: np.ndarray) -> object:
    observed = train & ~np.isnan(y).all(axis=1)
    model = make_pipeline(
        ContextJoiner(data.users, data.services),
        SharpQoSRegressor(
            max_epochs=30, learning_rate=0.02, gate_log_odds=0.0, l0_penalty=2e-3, random_state=0
        ),
    )
    return model.fit(X[observed], y[observed])


joint = fit(y)
errors = pd.DataFrame(
    {
        "joint": nan_mean_absolute_error(
            y[~train], joint.predict(X[~train]), multioutput="raw_values"
        ),
        "alone": [
            nan_mean_absolute_error(y[~train, k], fit(y[:, [k]]).predict(X[~train])[:, 0])
            for k in range(2)
        ],
    },
    index=QOS,
)
print(errors.round(3))

# %%
# The routing
# -----------
# Each task has a gate for each block that the context features go through (SNR), and for each block
# of the other task's features (Cross-SNR). The probability that a gate is open says what it takes.

figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
display = GateProbabilityDisplay.from_estimator(joint, target_names=NAMES, ax=axes)
plt.show()

# %%
# The weight of a task is inverse to its smoothed loss, so that neither has the say by its scale
# alone.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
history = TrainingHistoryDisplay.from_estimator(
    joint, kind="task_loss", target_names=NAMES, ax=left
)
history.plot(right, kind="task_weight")
plt.show()
print(joint[-1].active_shares_.set_axis(NAMES))
