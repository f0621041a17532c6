"""Draw the picture of the front page: ``python docs/draw_front_page.py`` writes ``_static``.

A model is fitted to a tenth of made-up response times. The other nine tenths tell what its
predictions, its intervals and its choices are worth. Needs matplotlib.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from figure_style import GREY, save_figure
from matplotlib.axes import Axes
from sklearn.pipeline import Pipeline, make_pipeline

from skqos import SAMoERegressor
from skqos.datasets import make_qos
from skqos.preprocessing import ContextJoiner
from skqos.selection import rank_services

LIMIT = 0.2
USER = 3


def main() -> None:
    """Fit, and draw three panels."""
    data = make_qos(80, 250, density=1.0, random_state=0)
    train = np.random.default_rng(0).random(len(data.y)) < 0.1
    model = make_pipeline(
        ContextJoiner(data.users, data.services),
        SAMoERegressor(
            first_stage_epochs=8, max_epochs=8, batch_size=256, intervals=True, random_state=0
        ),
    )
    model.fit(data.X[train], data.y[train])
    held_out = pd.DataFrame(data.X[~train], columns=["user", "service"]).assign(y=data.y[~train])
    panels = {
        "predictions": draw_predictions,
        "intervals": draw_intervals,
        "choice": draw_choice,
    }
    for name, draw in panels.items():
        size = (3.6, 3.1)
        save_figure(f"front_page_{name}", size, partial(draw, model=model, rows=held_out))


def draw_predictions(axes: Axes, model: Pipeline, rows: pd.DataFrame) -> None:
    """Predicted against measured values, a sample of the held-out rows."""
    some = rows.sample(300, random_state=0)
    axes.scatter(model.predict(some[["user", "service"]].to_numpy()), some["y"], s=7, alpha=0.5)
    ends = [0.01, 20]
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=[0.004, 30])
    axes.set(xlabel="predicted, s", ylabel="measured later, s", title="Predictions")


def draw_intervals(axes: Axes, model: Pipeline, rows: pd.DataFrame) -> None:
    """Intervals of a user's services in the order of the predictions, and what was measured."""
    ranking = _rank(model, rows).iloc[::5]
    place = np.arange(len(ranking))
    axes.vlines(place, ranking["lower"], ranking["upper"], alpha=0.45, linewidth=3)
    inside = ranking["y"].between(ranking["lower"], ranking["upper"])
    axes.scatter(place, ranking["y"], s=9, zorder=3, color=np.where(inside, "C0", "C1"))
    axes.set(yscale="log", ylim=[0.004, 30], xticks=[])
    axes.set(xlabel="services of a user", ylabel="response time, s", title="90 % intervals")


def draw_choice(axes: Axes, model: Pipeline, rows: pd.DataFrame) -> None:
    """Probability to meet the limit of a user's services, and whether they met it."""
    ranking = _rank(model, rows)
    for is_met, label in ((True, f"met {LIMIT} s"), (False, "did not")):
        part = ranking[(ranking["y"] <= LIMIT) == is_met]
        axes.scatter(part["prediction"], part["probability"], s=9, label=label)
    best = ranking.iloc[0]
    axes.annotate(
        "chosen",
        (best["prediction"], best["probability"]),
        (2.5 * best["prediction"], 1.02),
        arrowprops={"arrowstyle": "->", "color": GREY},
        va="center",
    )
    axes.axvline(LIMIT, color=GREY, linestyle="--", linewidth=1)
    axes.set(xscale="log", ylim=[-0.04, 1.09], xlabel="predicted, s")
    axes.set(ylabel=f"P(response within {LIMIT} s)", title="A choice under a limit")
    axes.legend(frameon=False, loc="upper right")


def _rank(model: Pipeline, rows: pd.DataFrame) -> pd.DataFrame:
    ranking = rank_services(model, USER, n=None, limit=LIMIT)
    return ranking.merge(rows, on=["user", "service"])


if __name__ == "__main__":
    main()
