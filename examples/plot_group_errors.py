"""
Whom a model serves well
========================

A mean error over all pairs hides who bears it. `GroupErrorDisplay` splits it up by group of users
and of services, for any regressor.

::

    python examples/plot_group_errors.py               made-up data
    python examples/plot_group_errors.py --data DIR    a part of WS-DREAM data set 1
"""

# %%
# Fit
# ---
# Half of the measurements train, the others tell the error. The context of users and services is
# joined in the pipeline, so that X holds ids alone.

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
parser.add_argument("--out", type=Path, help="file for the picture, else it is shown")
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
# Groups are columns of the context, or any label for each row. Small groups are merged: an error of
# a few rows says little. The worst stand first.

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
# `group_errors` gives the numbers alone, without matplotlib. A group need not be a column of the
# context: here it is whether user and service are in the same place.
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
