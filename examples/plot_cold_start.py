"""
New users and services
======================

New users and new services have no measurements. `SAMoERegressor` predicts them from their context:
country, autonomous system, region, provider and coordinates. This example compares the errors with
and without context, for known and new users and services.

::

    python examples/plot_cold_start.py
"""

# %%
# Hold out users and services
# ---------------------------
# A fifth of the users and a fifth of the services have no training row. Three quarters of the other
# pairs are used for training. The held-out rows form four groups.

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

from skqos import SAMoERegressor
from skqos.baselines import MedianRegressor
from skqos.datasets import make_qos
from skqos.preprocessing import ContextJoiner

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, help="file for the figure; by default it is shown")
args = parser.parse_args()

data = make_qos(100, 250, density=0.25, timeout_rate=0, random_state=0)
rng = np.random.default_rng(0)
new_user = np.isin(data.X[:, 0], rng.choice(100, 20, replace=False))
new_service = np.isin(data.X[:, 1], rng.choice(250, 50, replace=False))
train = ~new_user & ~new_service & (rng.random(len(data.y)) < 0.75)
groups = {
    "known user and service": ~new_user & ~new_service & ~train,
    "new user": new_user & ~new_service,
    "new service": ~new_user & new_service,
    "both new": new_user & new_service,
}
print(f"{train.sum():,} training rows")
for name, rows in groups.items():
    print(f"{name}: {rows.sum():,} rows")

# %%
# Fit with and without context
# ----------------------------
# A `ContextJoiner` holds the tables of context, also of the users and services without a training
# row. The same model without context knows only ids. The service median is the baseline; for a
# service without training rows it is the median of the user.


def make_model() -> SAMoERegressor:
    return SAMoERegressor(
        n_members=1, first_stage_epochs=8, max_epochs=8, batch_size=128, random_state=0
    )


models = {
    "with context": make_pipeline(ContextJoiner(data.users, data.services), make_model()),
    "without context": make_model(),
    "service median": MedianRegressor(by="service"),
}
errors = {}
for name, model in models.items():
    model.fit(data.X[train], data.y[train])
    error = np.abs(model.predict(data.X) - data.y)
    errors[name] = {group: error[rows].mean() for group, rows in groups.items()}
errors = pd.DataFrame(errors)
print(errors.round(3).to_string())

# %%
# Conclusion
# ----------
# With context, new users are predicted about as well as known ones, and better than by the service
# median. New services are harder, because less of their response time follows from their context;
# the error is still lower than that of the baseline. Without context, a new user is the average
# user and a new service the average service, and the model is no better than the median. Collect
# the context of users and services before their first measurement.


axes = errors.plot.barh(figsize=(8, 3.6), width=0.75)
axes.invert_yaxis()
axes.set(xlabel="mean absolute error, s", title="Error by kind of pair")
axes.legend(frameon=False)
figure = axes.figure
figure.tight_layout()
if args.out:
    figure.savefig(args.out, dpi=110)
else:
    plt.show()

# %%
# ``is_known`` returns which ids of a row are in the training data, so that an application can treat
# predictions of new ids differently.

known = models["without context"].is_known(data.X[new_user][:3])
print(pd.DataFrame(known, columns=["user known", "service known"]).to_string(index=False))
