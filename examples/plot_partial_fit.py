"""
Keep a model up to date
=======================

Measurements arrive every week, new users appear, and some services become slower. ``partial_fit``
updates a fitted model with the new rows. This example compares it with a model that is never
updated and with a new fit to all rows.

::

    python examples/plot_partial_fit.py
"""

# %%
# Four weeks
# ----------
# The data is synthetic. A third of the measurements are history, and the others arrive in four
# weeks. Ten users have no measurement before the second week. From the third week on, the response
# times of a fifth of the services are three times as long.

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skqos import SAMoERegressor
from skqos.datasets import make_qos

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, help="file for the figure; by default it is shown")
args = parser.parse_args()

data = make_qos(60, 120, density=0.5, timeout_rate=0, random_state=0)
rng = np.random.default_rng(0)
week = np.maximum(rng.integers(-2, 5, len(data.y)), 0)
late = (data.X[:, 0] >= 50) & (week < 2)
week[late] = rng.integers(2, 5, late.sum())
slower = np.isin(data.X[:, 1], rng.choice(120, 24, replace=False)) & (week >= 3)
X, y = data.X, np.where(slower, 3 * data.y, data.y)
print(pd.Series(week).value_counts().sort_index().rename("rows").rename_axis("week").to_string())

# %%
# Predict each week, then learn from it
# -------------------------------------
# Every model predicts the rows of a week before it sees them. Then one model is updated, one is
# fitted again to all rows so far, and one is not changed.


def make_model() -> SAMoERegressor:
    return SAMoERegressor(
        n_members=1, first_stage_epochs=6, max_epochs=6, batch_size=128, random_state=0
    )


frozen = make_model().fit(X[week == 0], y[week == 0])
updated = copy.deepcopy(frozen)
refitted = frozen
errors, seconds = [], {"updated": 0.0, "fitted again": 0.0}
for k in range(1, 5):
    rows, so_far = week == k, week <= k
    models = {"never updated": frozen, "updated": updated, "fitted again": refitted}
    errors.append(
        {name: np.abs(model.predict(X[rows]) - y[rows]).mean() for name, model in models.items()}
    )
    start = time.process_time()
    updated.partial_fit(X[rows], y[rows])
    seconds["updated"] += time.process_time() - start
    start = time.process_time()
    refitted = make_model().fit(X[so_far], y[so_far])
    seconds["fitted again"] += time.process_time() - start
errors = pd.DataFrame(errors, index=pd.Index(range(1, 5), name="week"))
print("mean absolute error, s")
print(errors.round(3).to_string())
share = seconds["updated"] / seconds["fitted again"]
print(f"four updates take {share:.0%} of the CPU time of four fits")

# %%
# Conclusion
# ----------
# Without updates the error rises when the new users appear, and again when some services become
# slower. With an update each week it rises less, and it is no higher than that of a model that is
# fitted again to all rows each week, at less than half of the CPU time. The time of an update
# depends on the new rows and the kept ones, not on all rows so far, so that the difference grows
# with the history. An update is a good default between fits; fit again from time to time, and
# compare both as in this example.


axes = errors.plot(figsize=(7, 3.6), marker="o", ylabel="mean absolute error, s")
axes.axvspan(2.5, 4.5, color="0.93", zorder=0)
axes.annotate("some services are slower", (2.6, 0.02), xycoords=("data", "axes fraction"))
axes.set(xticks=errors.index, xlim=(0.8, 4.2))
axes.set_ylim(bottom=0)
axes.legend(frameon=False)
figure = axes.figure
figure.tight_layout()
if args.out:
    figure.savefig(args.out, dpi=110)
else:
    plt.show()
