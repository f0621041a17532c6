"""
QoS over time
=============

`TPMCFRegressor` predicts the response time of a user-service pair at a time step, from the
measurements of this step and of the steps before it. This example fills in unmeasured cells and
forecasts the next time step.

::

    python examples/plot_temporal.py               synthetic data
    python examples/plot_temporal.py --data DIR    a part of WS-DREAM data set 2
"""

# %%
# Measurements over time
# ----------------------
# The QoS of pairs drifts over time, and each region has busy periods. The third column of X is the
# time step. The training data is 70 % of the measured cells of all steps except the last one, which
# is forecast.

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from skqos import TPMCFRegressor
from skqos.datasets import load_wsdream, make_qos
from skqos.inspection import AttentionDisplay
from skqos.metrics import nan_mean_absolute_error

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, help="folder of WS-DREAM data set 2")
parser.add_argument("--out", type=Path, help="file for the figure; by default it is shown")
args = parser.parse_args()

if args.data:
    data = load_wsdream(args.data, qos="rt")
    user, service, step = data.X.T
    part = (user < 40) & (service < 150) & (step > step.max() - 24)
    X, y = data.X[part], data.y[part]
else:
    data = make_qos(25, 40, 0.6, n_time_steps=24, noise=0.05, timeout_rate=0, random_state=0)
    X, y = data.X, data.y
last = X[:, 2].max()
train = (np.random.default_rng(0).random(len(y)) < 0.7) & (X[:, 2] < last)
print(f"{train.sum():,} training cells, {(~train).sum():,} held-out cells")

# %%
# Fit and predict
# ---------------
# The last step is not in the training data and is predicted from the window before it. The batches
# are small and the layers narrow, because there are few rows.

model = TPMCFRegressor(
    max_epochs=15,
    batch_size=128,
    learning_rate=6e-3,
    n_filters=16,
    hidden_sizes=(64, 32),
    random_state=0,
).fit(X[train], y[train])
for name, rows in (
    ("held-out cells of the training steps", ~train & (X[:, 2] < last)),
    ("one step ahead", X[:, 2] == last),
):
    mae = nan_mean_absolute_error(y[rows], model.predict(X[rows]))
    median = nan_mean_absolute_error(y[rows], np.full(rows.sum(), np.median(y[train])))
    print(f"{name}: MAE {mae:.3f} s, constant median {median:.3f} s")

# %%
# The time course of a pair
# -------------------------
# The plotted pair has the largest variation of response times among the pairs that were measured
# most often and never timed out.

pairs, pair_of_row, counts = np.unique(X[:, :2], axis=0, return_inverse=True, return_counts=True)
timeouts = np.bincount(pair_of_row, weights=y >= 19.9)
often = np.flatnonzero(counts >= np.quantile(counts[timeouts == 0], 0.9))
often = often[timeouts[often] == 0]
pair = max(often, key=lambda k: np.std(np.log1p(y[pair_of_row == k])))
user, service = pairs[pair]
of_pair = pair_of_row == pair
steps = np.arange(X[:, 2].min(), last + 1)
course = model.predict(np.column_stack([np.full((len(steps), 2), pairs[pair]), steps]))

# %%
# The left plot shows the measurements and predictions of the pair. The right plot shows the
# attention weights in the window before the forecast step, averaged over the heads of the last
# block. A row contains the weights with which a step uses the features of all steps.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4), width_ratios=[1.7, 1], layout="constrained"
)
for rows, label, style in (
    (of_pair & train, "measured, training", {"color": "C0"}),
    (of_pair & ~train, "measured, held out", {"facecolor": "none", "edgecolor": "C0"}),
):
    left.scatter(X[rows, 2], y[rows], label=label, zorder=3, **style)
left.plot(steps[:-1], course[:-1], color="C1", label="predicted")
left.plot(steps[-2:], course[-2:], color="C1", linestyle=":")
left.scatter(steps[-1], course[-1], color="C1", marker="D", label="predicted one step ahead")
left.axvspan(last - 0.5, last + 0.5, color="0.92", zorder=0)
left.set(
    title=f"user {user}, service {service}",
    xlabel="time step",
    ylabel="response time, s",
    xlim=(steps[0] - 0.5, last + 0.5),
)
left.set_ylim(bottom=0)
left.xaxis.set_major_locator(MaxNLocator(integer=True))
left.legend(frameon=False)
attention = AttentionDisplay.from_estimator(model, [[user, service, last]], ax=right)
if args.out:
    figure.savefig(args.out, dpi=110)
else:
    plt.show()

# %%
# Conclusion
# ----------
# The error of both tasks is much smaller than that of the constant median. The forecast has a
# larger error than the predictions of held-out cells, because no measurement of its step is
# available. The predictions of the pair follow the training measurements, but deviate where several
# consecutive measurements are held out.
