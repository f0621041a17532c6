"""Figures of the rows of results."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from skqos.benchmarks.tables import BASELINE, Layout, add_ratios

logger = logging.getLogger("skqos.benchmarks")


def write_figures(folder: Path, rows: pd.DataFrame, layout: Layout) -> None:
    """Draw the figures, if matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("no figures: matplotlib is not installed")
        return
    rows = add_ratios(rows, layout.by)
    problems = list(rows.groupby(list(layout.by), sort=False))
    for name, (draw, width) in FIGURES.items():
        figure = Figure(figsize=(width * len(problems), 5), layout="constrained")
        panels = figure.subplots(1, len(problems), squeeze=False)[0]
        for axes, (problem, part) in zip(panels, problems, strict=True):
            axes.set_title(layout.title(*problem))
            draw(axes, part)
        figure.savefig(folder / name, dpi=120)


def draw_errors(axes: object, rows: pd.DataFrame) -> None:
    """Mean absolute error relative to the baseline: each seed, and the range of the seeds."""
    names = list(dict.fromkeys(rows["model"]))[::-1]
    for place, name in enumerate(names):
        ratio = rows.loc[rows["model"] == name, "mae / MLP"]
        colour = "tab:orange" if name == BASELINE else "tab:blue"
        axes.plot([ratio.min(), ratio.max()], [place, place], color=colour, linewidth=2)
        axes.plot(ratio, np.full(len(ratio), place), "o", color=colour, alpha=0.5)
    axes.axvline(1, color="grey", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("MAE / MAE of the embedding MLP, one point a seed")


def draw_time(axes: object, rows: pd.DataFrame) -> None:
    """Mean absolute error against the time to fit, with one point per model."""
    means = rows.groupby("model", sort=False)[["fit_s", "mae"]].mean()
    for place, (name, mean) in enumerate(means.iterrows()):
        axes.plot(*mean, MARKERS[place // 10 % len(MARKERS)], color=f"C{place % 10}", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("fit, CPU s")
    axes.set_ylabel("MAE")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")


MARKERS = "osD^v"
FIGURES = {"errors.png": (draw_errors, 6), "error_against_time.png": (draw_time, 8)}
