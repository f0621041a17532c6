"""
Forecast tomorrow from a log
============================

A log has a time stamp in each line. `TPMCFRegressor` divides the time into steps, here days, and
forecasts the day after the last one. The forecasts are compared with simple baselines, and used to
choose a service for each user.

::

    python examples/plot_forecast.py
"""

# %%
# A log
# -----
# The data is synthetic: response times of two weeks and of the following day. The load of each
# region and the response time of each pair change from day to day.

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

from skqos import TPMCFRegressor
from skqos.baselines import MedianRegressor
from skqos.datasets import make_qos
from skqos.preprocessing import ContextJoiner

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, help="file for the figure; by default it is shown")
args = parser.parse_args()

data = make_qos(
    60,
    150,
    density=0.05,
    n_time_steps=15,
    start="2026-05-04",
    time_step="1D",
    irregular=True,
    noise=0.2,
    timeout_rate=0,
    random_state=0,
)
log = data.frame.sort_values("time")
print(log.head().to_string(index=False))
tomorrow = log["time"].max().normalize()
past, future = log[log["time"] < tomorrow], log[log["time"] >= tomorrow]
print(f"{len(past):,} lines before {tomorrow:%Y-%m-%d}, {len(future):,} on that day")

# %%
# Fit and forecast
# ----------------
# ``time_step="1D"`` divides the time stamps into days. A time after the last day of the training
# rows is a forecast. The context of users and services helps with pairs that are rarely measured.
# Small batches and narrow layers suit the small log.

columns = ["user", "service", "time"]
model = make_pipeline(
    ContextJoiner(data.users, data.services),
    TPMCFRegressor(
        time_step="1D",
        max_epochs=15,
        batch_size=128,
        n_filters=16,
        hidden_sizes=(64, 32),
        random_state=0,
    ),
)
model.fit(past[columns], past["rt"])
forecasts = {"TPMCFRegressor": model.predict(future[columns])}

# %%
# The baselines are the median of all earlier measurements of the pair, and its last measurement.
# For a pair without measurements, they are the median of the service.

median = MedianRegressor(by="pair").fit(past[["user", "service"]], past["rt"])
forecasts["pair median"] = median.predict(future[["user", "service"]])
last = past.groupby(["user", "service"])["rt"].last()
forecasts["last value of the pair"] = (
    future[["user", "service"]]
    .join(last, on=["user", "service"])["rt"]
    .fillna(pd.Series(forecasts["pair median"], index=future.index))
)
errors = pd.Series({name: np.abs(y - future["rt"]).mean() for name, y in forecasts.items()})
print("mean absolute error, s")
print(errors.round(3).to_string())

# %%
# Choose for tomorrow
# -------------------
# Each user chooses the service with the lowest forecast among those that it will use tomorrow. The
# regret is the difference between the response times of this service and of the fastest one.

future = future.assign(**{name: np.asarray(y) for name, y in forecasts.items()})
fastest = future.groupby("user")["rt"].min()
regret = {}
for name in forecasts:
    chosen = future.loc[future.groupby("user")[name].idxmin()].set_index("user")["rt"]
    regret[name] = (chosen - fastest).mean()
print("mean regret, s")
print(pd.Series(regret).round(3).to_string())

# %%
# Conclusion
# ----------
# The forecasts of the model have a lower error than both baselines, and the services chosen by them
# are closer to the fastest ones. If a pair was not measured recently, the baselines have only old
# values; the model also uses recent measurements of its user and of its service. The left plot
# shows the pair that was measured most often; the forecast day is grey. When this day has been
# measured, update the model or fit it again, because forecasts of nearer days are more accurate.

pair = past.groupby(["user", "service"]).size().idxmax()
course = past.set_index(["user", "service"]).loc[[pair]]
days = pd.date_range(past["time"].min().normalize(), tomorrow, freq="D") + pd.Timedelta("12h")
wanted = pd.DataFrame({"user": pair[0], "service": pair[1], "time": days})
figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 3.6), width_ratios=[1.7, 1], layout="constrained"
)
left.scatter(course["time"], course["rt"], label="measured", zorder=3)
left.plot(days, model.predict(wanted), color="C1", label="predicted")
left.axvspan(tomorrow, tomorrow + pd.Timedelta("1D"), color="0.92", zorder=0)
left.set(title=f"user {pair[0]}, service {pair[1]}", ylabel="response time, s")
left.set_ylim(bottom=0)
left.tick_params(axis="x", rotation=30)
left.legend(frameon=False)
right.barh(list(errors.index), errors, color=["C1", "0.7", "0.7"])
right.invert_yaxis()
right.set(xlabel="mean absolute error tomorrow, s")
if args.out:
    figure.savefig(args.out, dpi=110)
else:
    plt.show()
