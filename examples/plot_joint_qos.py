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
from skqos.metrics import nan_mean_absolute_error
from skqos.preprocessing import ContextJoiner

QOS = ["response time, s", "throughput, kbps"]
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
        SharpQoSRegressor(max_epochs=30, learning_rate=0.02, l0_penalty=2e-3, random_state=0),
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

gates = joint[-1].gate_probabilities_
history = joint[-1].history_
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for axes, probabilities, title in (
    (left, gates["snr"], "context (SNR)"),
    (middle, np.stack([gates["cross_snr"][0, 1], gates["cross_snr"][1, 0]]), "the other task"),
):
    image = axes.imshow(probabilities, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set(title=title, xlabel="block", xticks=range(probabilities.shape[1]))
    axes.set_yticks(range(2), ["response\ntime", "throughput"] if axes is left else ["", ""])
figure.colorbar(image, ax=middle, label="P(gate is open)")
for k, name in enumerate(QOS):
    right.plot(history["epoch"], history[f"train_loss_{k}"], label=name.split(",")[0])
    right.plot(history["epoch"], history[f"task_weight_{k}"], "--", color=f"C{k}")
right.set(title="loss (solid) and weight (dashed)", xlabel="epoch")
right.legend(frameon=False)
plt.show()

# %%
# The weight of a task is inverse to its smoothed loss, so that neither has the say by its scale
# alone.
active = joint[-1].active_shares_
print(active.set_axis(QOS))
