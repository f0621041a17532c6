"""
Errors by group of users and services
=====================================

A mean error over all pairs does not show how the error is distributed. `GroupErrorDisplay` plots
the mean absolute error of a regressor for groups of users and of services.

::

    python examples/plot_group_errors.py               synthetic data
    python examples/plot_group_errors.py --data DIR    a part of WS-DREAM data set 1
"""

# %%
# Fit
# ---
# One half of the measurements is used for training, the other half for the errors. The context of
# users and services is joined in the pipeline, so that X contains only ids.

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skqos import SAMoERegressor
from skqos.datasets import load_wsdream, make_qos
from skqos.inspection import GroupErrorDisplay, group_errors
from skqos.preprocessing import ContextJoiner

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, help="folder of WS-DREAM data set 1")
parser.add_argument("--out", type=Path, help="file for the figure; by default it is shown")
args = parser.parse_args()

if args.data:
    data = load_wsdream(args.data)
    kind = "country"
else:
    data = make_qos(80, 200, density=0.5, random_state=0)
    kind = "region"
part = np.random.default_rng(0).permutation(len(data.y))[:6_000]
train, test = np.array_split(part, 2)
model = make_pipeline(
    ContextJoiner(data.users, data.services),
    SAMoERegressor(first_stage_epochs=8, max_epochs=10, random_state=0),
)
model.fit(data.X[train], data.y[train])

# %%
# Errors by group
# ---------------
# Groups are given by a column of the context, or by a label for each row. Small groups are merged
# into "other", because the error of a few rows is not reliable. Groups are sorted by their error in
# descending order.

figure, (top, bottom) = plt.subplots(
    2, 1, figsize=(8.5, 8.5), height_ratios=[1.5, 1], layout="constrained"
)
GroupErrorDisplay.from_estimator(
    model,
    data.X[test],
    data.y[test],
    user_groups=f"user_{kind}",
    service_groups=f"service_{kind}",
    max_groups=8,
    ax=top,
)
GroupErrorDisplay.from_estimator(
    model, data.X[test], data.y[test], service_groups="service_as", ax=bottom
)
if args.out:
    figure.savefig(args.out, dpi=110)
else:
    plt.show()

# %%
# `group_errors` computes the errors without a plot. Groups do not have to be columns of the
# context: here they state whether user and service are in the same place.
of_user, of_service = (
    table[kind].astype(object).to_numpy()[ids]
    for table, ids in zip((data.users, data.services), data.X[test].T, strict=True)
)
errors = group_errors(
    data.y[test],
    model.predict(data.X[test]),
    user_groups=np.where(of_user == of_service, f"same {kind}", f"another {kind}"),
)
print(errors.round(3))

# %%
# Conclusion
# ----------
# The error differs by more than a factor of two between groups. On the synthetic data, the errors
# of one region of services and of a few autonomous systems are much larger than the mean, so
# predictions for them should be used with care, or more measurements collected. Pairs in the same
# region have a smaller error than pairs in different regions.
