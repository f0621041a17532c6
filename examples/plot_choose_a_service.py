"""
Choose a service
================

Each user has measured some services, and needs one that answers within 0.2 s. `SAMoERegressor`
predicts what was not measured, and how far a measurement may lie from that;
`skqos.selection.rank_services` makes a choice of it.

::

    python examples/plot_choose_a_service.py               made-up data
    python examples/plot_choose_a_service.py --data DIR    a part of WS-DREAM data set 1
"""

# %%
# Measurements
# ------------
# Response times in seconds, some of which are time-outs. A tenth of them trains; the others tell
# afterwards what a user would have got.

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

from skqos import SAMoERegressor
from skqos.datasets import load_wsdream, make_qos
from skqos.exceptions import NoServiceWarning
from skqos.preprocessing import ContextJoiner
from skqos.selection import rank_services

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, help="folder of WS-DREAM data set 1")
parser.add_argument("--out", type=Path, help="file for the last picture; else all are shown")
args = parser.parse_args()

if args.data:
    data = load_wsdream(args.data, qos="rt")
    part = (data.X < [80, 250]).all(axis=1)
else:
    data = make_qos(80, 250, density=1.0, random_state=0)
    part = np.ones(len(data.y), dtype=bool)
X, y = data.X[part], data.y[part]
train = np.random.default_rng(0).random(len(y)) < 0.1
later = pd.DataFrame(X[~train], columns=["user", "service"]).assign(measured=y[~train])
LIMIT = 0.2
print(
    f"{train.sum():,} measurements train, {np.mean(y[train] <= LIMIT):.0%} of which meet the limit"
)

# %%
# A model that knows how sure it is
# ---------------------------------
# With ``intervals=True``, fitting takes about twice as long: a second training, on a part of the
# rows, tells how far measurements lie from predictions.

model = make_pipeline(
    ContextJoiner(data.users, data.services),
    SAMoERegressor(first_stage_epochs=8, max_epochs=15, intervals=True, random_state=0),
)
model.fit(X[train], y[train])

# %%
# One user
# --------
# The best services of a user are those with the lowest predictions. The probability is that of
# meeting the limit.

user = later["user"].iloc[0]
ranking = rank_services(model, user, n=None, limit=LIMIT).merge(later)
print(ranking.head().round(3).to_string(index=False))

# %%
# On the left, all services in the order of the ranking. Intervals of 90 % are narrow where the
# prediction is low, and wide where it is high. On the right, what an order by the prediction alone does
# not show: services of about the same prediction are not as likely to meet the limit.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
position = np.arange(1, len(ranking) + 1)
left.fill_between(
    position, ranking["lower"].clip(1e-3), ranking["upper"], alpha=0.25, label="90 % interval"
)
left.plot(position, ranking["prediction"], label="prediction")
left.scatter(position, ranking["measured"], s=8, color="C1", label="measured later")
left.axhline(LIMIT, color="0.3", linestyle="--", label="limit")
left.set(xlabel="services, in the order of the ranking", ylabel="response time, s", yscale="log")
left.set_ylim(bottom=5e-3)
left.legend(frameon=False)
for is_met, label, color in ((True, "met the limit", "C0"), (False, "did not", "C1")):
    rows = ranking[(ranking["measured"] <= LIMIT) == is_met]
    right.scatter(rows["prediction"], rows["probability"], s=12, color=color, label=label)
right.axvline(LIMIT, color="0.3", linestyle="--")
right.set(xlabel="predicted response time, s", ylabel="probability to meet the limit", xscale="log")
right.legend(frameon=False)
figure.suptitle(f"user {user}")
plt.show()

# %%
# All users
# ---------
# Every user gets five services. The more probable it has to be that they meet the limit, the more
# of them do, and the more users are left without any, whom a warning tells.

users = np.unique(X[:, 0])
outcomes = {}
for min_probability in (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=NoServiceWarning)
        chosen = rank_services(model, users, limit=LIMIT, min_probability=min_probability)
    seen = chosen.merge(later)
    outcomes[min_probability] = {
        "users with a service": chosen["user"].nunique() / len(users),
        "choices that met the limit": np.mean(seen["measured"] <= LIMIT),
        "mean response time": seen["measured"].mean(),
    }
outcomes = pd.DataFrame.from_dict(outcomes, orient="index").rename_axis("min_probability")
print(outcomes.round(3))

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
outcomes.iloc[:, :2].plot(ax=ax, marker="o")
ax.set(xlabel="min_probability", ylabel="share", ylim=(0, 1.03))
ax.legend(frameon=False, loc="lower left")
if args.out:
    figure.savefig(args.out, dpi=110)
else:
    plt.show()
