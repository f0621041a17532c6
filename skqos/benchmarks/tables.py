"""Rows of results as tables in Markdown: means over the seeds, relative to a baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from skqos.benchmarks._results import deviation
from skqos.benchmarks.markdown import markdown
from skqos.benchmarks.runs import read_rows

BASELINE = "embedding MLP"
RELATIVE = ("mae", "rmse", "fit_s")


@dataclass(frozen=True)
class CellSelection:
    """A selection of test cells, and the heading of the table of their errors."""

    suffix: str
    title: str
    note: str = ""


@dataclass(frozen=True)
class Layout:
    """Layout of the tables of a benchmark.

    Parameters
    ----------
    by : tuple of str
        Columns that identify a problem.

    head : tuple of str
        Headings of the columns that describe a problem.

    cells : callable
        Function that returns these columns for a problem.

    digits : callable
        Function that returns the number of digits of the errors of a problem.

    models : sequence of str
        Order of the rows.

    protocols : mapping of str to CellSelection
        Tables, by name of their marks.
    """

    by: tuple[str, ...]
    head: tuple[str, ...]
    cells: Callable[..., list[str]]
    digits: Callable[..., int]
    models: Sequence[str]
    protocols: Mapping[str, CellSelection]


def read_results(paths: Iterable[Path], layout: Layout) -> pd.DataFrame:
    """Read the results of one or more runs in the order of the tables.

    Raises
    ------
    ValueError
        If a file lacks a column of the layout.
    """
    key = [*layout.by, "model", "seed"]
    frames = []
    for path in paths:
        frame = read_rows(path)
        missing = {*key, "mae", "peak_mb"} - {*frame.columns}
        if missing:
            raise ValueError(f"{path} has no columns {sorted(missing)}: not results of this script")
        # A joint model whose run was killed between its rows has one of them twice.
        frames.append(frame.drop_duplicates(key, keep="last").assign(run=str(path)))
    rows = pd.concat(frames, ignore_index=True)
    order = {name: place for place, name in enumerate(layout.models)}
    rows["place"] = rows["model"].map(lambda name: order.get(name, len(order)))
    return rows.sort_values([*layout.by, "place", "model", "seed", "run"], ignore_index=True)


def take_errors(rows: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Replace the errors by those of another protocol, if there are any."""
    errors = {name: rows[f"{name}{protocol}"] for name in ("mae", "rmse")}
    return rows.assign(**errors).dropna(subset="mae")


def add_ratios(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Add columns relative to the baseline of the same run, else to that of all runs."""
    baseline = rows[rows["model"] == BASELINE]
    ratios = {}
    for column in RELATIVE:
        means = []
        for keys in ([*by, "run"], [*by]):
            mean = baseline.groupby(keys)[column].mean().rename("baseline")
            means.append(rows.join(mean, on=keys)["baseline"])
        ratios[f"{column} / MLP"] = rows[column] / means[0].fillna(means[1])
    return rows.assign(**ratios)


def summarise(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Average over seeds, with deviations of the errors where there are several."""
    groups = add_ratios(rows, by).groupby([*by, "model"], sort=False)
    ratios = [f"{name} / MLP" for name in RELATIVE]
    result = groups[["mae", "rmse", "fit_s", "pairs_per_s", "peak_mb", *ratios]].mean()
    deviations = groups[["mae", "rmse"]].agg(deviation).add_suffix("_std")
    return result.join(deviations).assign(seeds=groups["seed"].nunique())


def make_table(summary: pd.DataFrame, layout: Layout) -> str:
    """Write a summary as a table of Markdown; the lowest errors of a problem are bold."""
    table = []
    best = summary.groupby(list(layout.by))[["mae", "rmse"]].transform("min")
    for (*problem, model), row in summary.iterrows():
        digits = layout.digits(*problem)
        least = best.loc[(*problem, model)]
        errors = [_write_error(row, name, least[name], digits) for name in ("mae", "rmse")]
        ratios = [_number(row[f"{name} / MLP"], ".3f") for name in ("mae", "rmse")]
        costs = [
            f"{row['fit_s']:.0f}",
            _number(row["fit_s / MLP"], ".1f"),
            f"{_two_digits(row['pairs_per_s']):,.0f}",
            f"{row['peak_mb']:,.0f}",
        ]
        seeds = f"{row['seeds']:.0f}"
        table.append([*layout.cells(*problem), model, seeds, *errors, *ratios, *costs])
    head = [*layout.head, "model", "seeds", "MAE (deviation)", "RMSE (deviation)"]
    head += [
        "MAE / MLP",
        "RMSE / MLP",
        "fit, CPU s",
        "fit / MLP",
        "pairs / CPU s",
        "peak memory, MB",
    ]
    return markdown(head, table)


def _write_error(row: pd.Series, name: str, least: float, digits: int) -> str:
    """Return a mean with its deviation as text; without deviation for one seed."""
    mean, spread = f"{row[name]:.{digits}f}", row[f"{name}_std"]
    shown = f"**{mean}**" if mean == f"{least:.{digits}f}" else mean
    return shown if np.isnan(spread) else f"{shown} ({spread:.{digits}f})"


def _number(value: float, spec: str) -> str:
    """Write a ratio; there is none without the baseline."""
    return "" if np.isnan(value) else format(value, spec)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")
