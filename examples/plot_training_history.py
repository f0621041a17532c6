"""
Training history
================

Every estimator that trains a network records its losses in ``history_``, with one row per epoch.
`TrainingHistoryDisplay` plots them. The plots show whether more epochs are useful, and how joint
training weights its targets.

::

    python examples/plot_training_history.py               synthetic data
    python examples/plot_training_history.py --data DIR    a part of WS-DREAM data set 1
"""

# %%
# Measurements
# ------------
# The measurements are response time (s) and throughput (kbps) of the same pairs, with NaN for
# values that were not measured.

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skqos import SAMoERegressor, SharpQoSRegressor
from skqos.datasets import load_wsdream, make_qos
from skqos.inspection import TrainingHistoryDisplay

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, help="folder of WS-DREAM data set 1")
parser.add_argument("--out", type=Path, help="file for the figure; by default it is shown")
args = parser.parse_args()

if args.data:
    data = load_wsdream(args.data, qos=["rt", "tp"])
else:
    data = make_qos(60, 150, density=0.5, n_qos=2, timeout_rate=0, random_state=0)
part = np.random.default_rng(0).permutation(len(data.y))[:2_000]
X, y = data.X[part], data.y[part]

# %%
# Two stages, and two targets
# ---------------------------
# `SAMoERegressor` has two training stages: the first network predicts pairs that were not measured,
# and the second one is trained on these predictions in addition to the measurements.
# ``early_stopping="monitor"`` holds out validation rows and records their loss, but does not stop
# the training. `SharpQoSRegressor` learns both targets jointly.

measured = ~np.isnan(y[:, 0])
two_stages = SAMoERegressor(
    first_stage_epochs=8, max_epochs=12, early_stopping="monitor", random_state=0
)
two_stages.fit(X[measured], y[measured, 0])
joint = SharpQoSRegressor(max_epochs=15, random_state=0).fit(X, y)

# %%
# Losses and weights
# ------------------
# Losses are in units of the transformed target. If the validation loss increases while the training
# loss decreases, the network overfits and the training is too long. In joint training, the weight
# of a target is inversely proportional to its smoothed loss, so that a target with a large loss
# does not dominate.

figure, axes = plt.subplot_mosaic(
    [["stages", "stages"], ["losses", "weights"]], figsize=(8.5, 6), layout="constrained"
)
TrainingHistoryDisplay.from_estimator(two_stages, ax=axes["stages"])
display = TrainingHistoryDisplay.from_estimator(
    joint, kind="task_loss", target_names=["response time", "throughput"], ax=axes["losses"]
)
display.plot(axes["weights"], kind="task_weight")
if args.out:
    figure.savefig(args.out, dpi=110)
else:
    plt.show()

# %%
# The values are in ``history_``.
print(two_stages.history_.groupby("stage", sort=False).tail(1).round(3).to_string(index=False))

# %%
# Conclusion
# ----------
# In the final stage of `SAMoERegressor`, the training loss decreases further, while the validation
# loss stays almost constant: more epochs would not improve the model. In joint training, the target
# with the smaller loss, throughput, has the larger weight. Both losses are still decreasing slowly
# at the end, so a longer training may improve this model.
