"""
Two QoS parameters at once
==========================

`SharpQoSRegressor` predicts response time and throughput jointly, from rows in which often only one
of them was measured. This example compares joint prediction with separate models, and shows which
features the two tasks share.
"""

# %%
# Measurements
# ------------
# The data is synthetic. Each user and service has a country and an autonomous system. A row of
# ``y`` contains response time (s) and throughput (kbps), with NaN for values that were not
# measured.

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
# Joint and separate models
# -------------------------
# The estimator is fitted once to both QoS parameters and once to each of them. Joint prediction
# only needs a two-dimensional ``y``. A high learning rate and twice the default penalty on open
# gates are used, so that the gates change noticeably in a short training.


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
# Each task has a gate for each block of context features (SNR) and for each block of features of
# the other task (Cross-SNR). The plots show the probability that a gate is open.

figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
display = GateProbabilityDisplay.from_estimator(joint, target_names=NAMES, ax=axes)
plt.show()

# %%
# The weight of a task is inversely proportional to its smoothed loss, so that a task with a large
# loss does not dominate the training. The printed table is the share of gates that are not 0 in
# prediction.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
history = TrainingHistoryDisplay.from_estimator(
    joint, kind="task_loss", target_names=NAMES, ax=left
)
history.plot(right, kind="task_weight")
plt.show()
print(joint[-1].active_shares_.set_axis(NAMES))

# %%
# Conclusion
# ----------
# In this example, joint prediction has no advantage: both separate models have a smaller error. The
# routing agrees with this: most gates for features of the other task are closed, so the tasks share
# little. The learning rate and the penalty were chosen to show the gates, not for accuracy. Joint
# prediction is useful if one model for all QoS parameters is needed; compare it with separate
# models on your own data.
