"""
The course of training
======================

Every estimator records its losses in ``history_``, one row an epoch. `TrainingHistoryDisplay` draws
them: is more training worth while, and which target has the say in joint training?

::

    python examples/plot_training_history.py               made-up data
    python examples/plot_training_history.py --data DIR    a part of WS-DREAM data set 1
"""

# %%
# Measurements
# ------------
# Response time (s) and throughput (kbps) of the same pairs; NaN stands for "not measured".

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
parser.add_argument("--out", type=Path, help="file for the picture, else it is shown")
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
# `SAMoERegressor` trains twice: the first network predicts pairs that nobody measured, which the
# second learns from beside the others. ``early_stopping="monitor"`` holds rows out of training and
# records their loss, but stops nothing. `SharpQoSRegressor` learns both targets at once.

measured = ~np.isnan(y[:, 0])
two_stages = SAMoERegressor(
    first_stage_epochs=8, max_epochs=12, early_stopping="monitor", random_state=0
)
two_stages.fit(X[measured], y[measured, 0])
joint = SharpQoSRegressor(max_epochs=15, random_state=0).fit(X, y)

# %%
# Losses and weights
# ------------------
# Losses are in units of the transformed target. Where the validation loss rises again while the
# training loss falls, training is too long. The weight of a target is inverse to its smoothed loss,
# so that neither has the say by its scale alone.

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
# The numbers are in ``history_``.
print(two_stages.history_.groupby("stage", sort=False).tail(1).round(3).to_string(index=False))
