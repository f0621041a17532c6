"""
Choose a service
================

Users measured a few services each. Which one should each of them take, if it has to answer within
half a second? `SAMoERegressor` predicts what was not measured and how far a measurement may lie
from that, and `skqos.selection.rank_services` turns it into a choice.

::

    python examples/plot_choose_a_service.py               made-up data
    python examples/plot_choose_a_service.py --data DIR    a part of WS-DREAM data set 1
"""

# %%
# Measurements
# ------------
# Response times in seconds. A tenth of all cells trains; the others tell afterwards what would have
# been measured.

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

from skqos import SAMoERegressor
from skqos.datasets import load_wsdream, make_qos
from skqos.preprocessing import ContextJoiner
from skqos.selection import rank_services

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, help="folder of WS-DREAM data set 1")
parser.add_argument("--out", type=Path, help="file for the last picture; else all are shown")
args = parser.parse_args()

LIMIT = 0.5
if args.data:
    data = load_wsdream(args.data, qos="rt")
    part = (data.X < [100, 400]).all(axis=1)
else:
    data = make_qos(80, 250, density=1.0, random_state=0)
    part = np.full(len(data.y), True)
X, y = data.X[part], data.y[part]
train = np.random.default_rng(0).random(len(y)) < 0.15
held_out = pd.DataFrame(X[~train], columns=["user", "service"]).assign(measured=y[~train])
print(f"{train.sum():,} cells train; {np.mean(y[train] <= LIMIT):.0%} of them meet the limit")

model = make_pipeline(
    ContextJoiner(data.users, data.services), SAMoERegressor(intervals=True, random_state=0)
)
model.fit(X[train], y[train])

# %%
# The best services of a user
# ---------------------------
# Services are ordered by the prediction, which is about the median of what will be measured. The
# interval is to hold nine of ten measurements.

user = held_out["user"].iloc[0]
best = rank_services(model, user, n=12, limit=LIMIT).merge(held_out, how="left")
print(best[["rank", "service", "prediction", "lower", "upper", "probability"]].round(3))

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
errors = [best["prediction"] - best["lower"], best["upper"] - best["prediction"]]
ax.errorbar(
    best["prediction"],
    best.index,
    xerr=errors,
    fmt="o",
    capsize=3,
    label="prediction, 90 % interval",
)
ax.scatter(best["measured"], best.index, marker="x", color="C1", zorder=3, label="measured later")
ax.axvline(LIMIT, color="0.3", linestyle="--", label="limit")
ax.set_yticks(best.index, best["service"])
ax.invert_yaxis()
ax.set(xlabel="response time, s", ylabel="service", xscale="log", title=f"user {user}")
ax.legend(frameon=False)
plt.show()
