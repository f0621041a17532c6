"""
Choose a service under a limit
==============================

Each user has measured some of the services and needs a service with a response time of at most
0.2 s. `SAMoERegressor` predicts the response time of all other services and a distribution around
each prediction. `skqos.selection.rank_services` ranks the services with both.

::

    python examples/plot_choose_a_service.py               synthetic data
    python examples/plot_choose_a_service.py --data DIR    a part of WS-DREAM data set 1
"""

# %%
# Measurements
# ------------
# The measurements are response times in seconds, with some time-outs. One tenth of them is used for
# training. The others show afterwards which response times the users would have had.

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
parser.add_argument(
    "--out", type=Path, help="file for the last figure; by default all figures are shown"
)
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
share = np.mean(y[train] <= LIMIT)
print(f"{train.sum():,} training measurements, {share:.0%} of them meet the limit")

# %%
# A model with intervals
# ----------------------
# With ``intervals=True``, `fit` also trains a second network on a part of the rows. Its errors on
# the other rows give the distribution of measurements around predictions. With intervals, `fit`
# takes 1.6 to 1.9 times as long.

model = make_pipeline(
    ContextJoiner(data.users, data.services),
    SAMoERegressor(first_stage_epochs=8, max_epochs=15, intervals=True, random_state=0),
)
model.fit(X[train], y[train])

# %%
# Ranking for one user
# --------------------
# The services of a user are ranked by their predictions. The column ``probability`` is the
# probability of meeting the limit, and ``measured`` is the response time in the held-out rows.

user = later["user"].iloc[0]
ranking = rank_services(model, user, n=None, limit=LIMIT).merge(later)
columns = ["rank", "service", "prediction", "lower", "upper", "probability", "measured"]
print(ranking[columns].head().round(3).to_string(index=False))

# %%
# The left plot shows all services in the order of the ranking, with 90 % intervals. The right plot
# shows the probability of meeting the limit over the prediction. Most services are on one curve,
# but some services with low predictions have a low probability; their intervals are the peaks in
# the left plot. The reason is that a prediction is close to the median of the measurements, which
# is low even for a service that times out occasionally.

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
right.set(xlabel="predicted response time, s", ylabel="probability of meeting the limit")
right.set(xscale="log")
right.legend(frameon=False)
figure.suptitle(f"user {user}")
if not args.out:
    plt.show()

# %%
# Choices of all users
# --------------------
# Each user gets up to five services. Services with a probability below ``min_probability`` are
# excluded, and `rank_services` warns of users without a remaining service. The table evaluates the
# chosen services with the held-out measurements.

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
# Conclusion
# ----------
# Ranking by the prediction alone (``min_probability`` of 0) selects services that mostly meet the
# limit, but the few time-outs among them dominate the mean response time. A ``min_probability`` of
# 0.75 to 0.8 avoids most of the time-outs, which reduces the mean response time to a fraction, and
# nearly every user still has a service. Higher values bring little further improvement and leave
# users without a service. The predicted probabilities are cautious here: the limit is met more
# often than the column ``mean probability`` states.

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
