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
# The best services of a user are those with the lowest predictions. ``probability`` is that of
# meeting the limit.

user = later["user"].iloc[0]
ranking = rank_services(model, user, n=None, limit=LIMIT).merge(later)
columns = ["rank", "service", "prediction", "lower", "upper", "probability", "measured"]
print(ranking[columns].head().round(3).to_string(index=False))

# %%
# On the left, all services in the order of the ranking, with intervals of 90 %. On the right, what
# the order does not show: some services with low predictions are not that likely to meet the limit.
# Their intervals are the peaks on the left. A prediction is about the median of what may be
# measured, and the median of a service that times out now and then is low.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
place = np.arange(1, len(ranking) + 1)
left.fill_between(place, ranking["lower"], ranking["upper"], alpha=0.25, label="90 % interval")
left.plot(place, ranking["prediction"], label="prediction")
left.scatter(place, ranking["measured"], s=8, color="C1", label="measured later")
left.axhline(LIMIT, color="0.3", linestyle="--", label="limit")
left.set(xlabel="services, in the order of the ranking", ylabel="response time, s")
left.set(yscale="log", ylim=(5e-3, 40))
left.legend(frameon=False, fontsize="small", loc="upper left")
for is_met, label, color in ((True, "met the limit", "C0"), (False, "did not", "C1")):
    rows = ranking[(ranking["measured"] <= LIMIT) == is_met]
    right.scatter(rows["prediction"], rows["probability"], s=12, color=color, label=label)
right.axvline(LIMIT, color="0.3", linestyle="--")
right.set(xlabel="predicted response time, s", ylabel="probability to meet the limit")
right.set(xscale="log")
right.legend(frameon=False)
figure.suptitle(f"user {user}")
if not args.out:
    plt.show()

# %%
# All users
# ---------
# Every user gets five services. Those below ``min_probability`` are left out, and a warning tells
# for whom none is left. What was measured later at the services that were chosen?

users = np.unique(X[:, 0])
outcomes = {}
for min_probability in (0.0, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=NoServiceWarning)
        chosen = rank_services(model, users, limit=LIMIT, min_probability=min_probability)
    seen = chosen.merge(later)
    outcomes[min_probability] = {
        "users with a service": chosen["user"].nunique() / len(users),
        "mean probability": seen["probability"].mean(),
        "met the limit": np.mean(seen["measured"] <= LIMIT),
        "timed out": np.mean(seen["measured"] >= 19.9),
        "mean response time": seen["measured"].mean(),
    }
outcomes = pd.DataFrame.from_dict(outcomes, orient="index").rename_axis("min_probability")
print(outcomes.round(3).to_string())

# %%
# By the order alone, most choices meet the limit, but some time out, which decides about the mean
# response time. Up to a probability of 0.8 all users keep a service, and most of the time-outs are
# gone. A stricter condition gains little and leaves users without a service. The choices meet the
# limit somewhat more often here than the model has promised.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
outcomes[["users with a service", "met the limit"]].plot(ax=left, marker="o", ylabel="share")
outcomes["mean response time"].plot(
    ax=right, marker="o", color="C2", ylabel="mean response time, s"
)
left.set_ylim(0, 1.03)
left.legend(frameon=False, loc="lower left")
right.set_ylim(bottom=0)
if args.out:
    figure.savefig(args.out, dpi=110)
else:
    plt.show()
