"""
Experts and gates
=================

Two of the models route what they know: the gate of `SAMoERegressor` weighs three experts for each
pair, and the gates of `SharpQoSRegressor` open or close blocks of context features and of the other
target's features. Which of them are used?

::

    python examples/plot_experts_and_gates.py               made-up data
    python examples/plot_experts_and_gates.py --data DIR    a part of WS-DREAM data set 1
"""

# %%
# Measurements
# ------------
# Response time (s) and throughput (kbps), with what is known of users and services.

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
parser.add_argument("--out", type=Path, help="file for the picture, else it is shown")
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
# A high learning rate, and a higher penalty on open gates than usual, move the gates far in a short
# training.

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
# What is used
# ------------
# On pairs that training did not see: on which share of them each expert is closest, when it
# predicts alone, and how much the gate trusts it. Then the probability that a gate is open: of each
# target, for each block of context features (SNR) and of the other target's features (Cross-SNR).

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
# The numbers are there as tables.
print(shares.shares.round(3))
print(probabilities.tables["snr"].round(3))
