"""
Experts and gates
=================

Two of the estimators have gates. In `SAMoERegressor`, a gate weights the outputs of three experts
for each pair. In `SharpQoSRegressor`, gates open or close blocks of context features and of
features of the other targets. This example shows which experts and blocks are used.

::

    python examples/plot_experts_and_gates.py               synthetic data
    python examples/plot_experts_and_gates.py --data DIR    a part of WS-DREAM data set 1
"""

# %%
# Measurements
# ------------
# The measurements are response time (s) and throughput (kbps), with context of users and services.

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skqos import SAMoERegressor, SharpQoSRegressor
from skqos.datasets import load_wsdream, make_qos
from skqos.inspection import ExpertShareDisplay, GateProbabilityDisplay
from skqos.preprocessing import ContextJoiner

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, help="folder of WS-DREAM data set 1")
parser.add_argument("--out", type=Path, help="file for the figure; by default it is shown")
args = parser.parse_args()

if args.data:
    data = load_wsdream(args.data, qos=["rt", "tp"])
else:
    data = make_qos(60, 150, density=0.5, n_qos=2, timeout_rate=0, random_state=0)
part = np.random.default_rng(0).permutation(len(data.y))[:3_000]
train, test = np.array_split(part, 2)
train_rt, test_rt = (rows[~np.isnan(data.y[rows, 0])] for rows in (train, test))

# %%
# Two models
# ----------
# `SharpQoSRegressor` is fitted with a high learning rate and a high penalty on open gates, so that
# the gates change noticeably in a short training.

context = ContextJoiner(data.users, data.services)
experts = make_pipeline(
    context, SAMoERegressor(first_stage_epochs=6, max_epochs=10, random_state=0)
)
experts.fit(data.X[train_rt], data.y[train_rt, 0])
gates = make_pipeline(
    context,
    SharpQoSRegressor(
        max_epochs=15, learning_rate=0.04, gate_log_odds=0.0, l0_penalty=3e-3, random_state=0
    ),
)
gates.fit(data.X[train], data.y[train])

# %%
# Use of experts and blocks
# -------------------------
# The upper plot shows, for pairs outside the training data, the share of pairs on which each expert
# alone has the smallest error, and its mean gate weight. The lower plots show the probability that
# a gate is open, for each target and each block of context features (SNR) or of features of the
# other target (Cross-SNR).

figure, axes = plt.subplot_mosaic(
    [["experts", "experts"], ["context", "other target"]],
    figsize=(8.5, 6),
    height_ratios=[1.4, 1],
    layout="constrained",
)
shares = ExpertShareDisplay.from_estimator(
    experts, data.X[test_rt], data.y[test_rt, 0], ax=axes["experts"]
)
probabilities = GateProbabilityDisplay.from_estimator(
    gates,
    target_names=["response time", "throughput"],
    ax=[axes["context"], axes["other target"]],
)
if args.out:
    figure.savefig(args.out, dpi=110)
else:
    plt.show()

# %%
# The values are also available as tables.
print(shares.shares.round(3))
print(probabilities.tables["snr"].round(3))

# %%
# Conclusion
# ----------
# No expert is best on all pairs: each of the three has the smallest error on a substantial share
# of them. The gate gives the experts that are best more often a larger weight. Throughput keeps
# more of its context gates open than response time. This example shows how to read the displays;
# the settings were chosen for a visible effect, not for accuracy.
