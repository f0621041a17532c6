"""Errors and costs as tables in Markdown: means over the seeds, relative to a baseline."""

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
HEAD = ["model", "seeds", "MAE (deviation)", "RMSE (deviation)", "MAE / MLP", "RMSE / MLP"]
HEAD += ["fit, CPU s", "fit / MLP", "pairs / CPU s", "peak memory, MB"]


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

    title : callable
        Function that returns the heading of the table of a problem.

    digits : callable
        Function that returns the number of digits of the errors of a problem.

    models : sequence of str
        Order of the rows.

    protocols : mapping of str to CellSelection
        Tables, by name of their marks.
    """

    by: tuple[str, ...]
    title: Callable[..., str]
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
    frames = []
    for path in paths:
        frame = read_rows(path)
        missing = {*_keys(layout), "mae", "peak_mb"} - {*frame.columns}
        if missing:
            raise ValueError(f"{path} has no columns {sorted(missing)}: not results of this script")
        frames.append(frame)
    return order_rows(frames, layout)


def order_rows(frames: Iterable[pd.DataFrame], layout: Layout) -> pd.DataFrame:
    """Return the rows of one or more runs in the order of the tables."""
    # A joint model whose run was killed between its rows has one of them twice.
    runs = [
        frame.drop_duplicates(_keys(layout), keep="last").assign(run=run)
        for run, frame in enumerate(frames)
    ]
    rows = pd.concat(runs, ignore_index=True)
    order = {name: place for place, name in enumerate(layout.models)}
    rows["place"] = rows["model"].map(lambda name: order.get(name, len(order)))
    return rows.sort_values([*layout.by, "place", "model", "seed", "run"], ignore_index=True)


def _keys(layout: Layout) -> list[str]:
    return [*layout.by, "model", "seed"]


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


def summarise_protocols(rows: pd.DataFrame, layout: Layout) -> dict[str, pd.DataFrame]:
    """Summarise the errors of each protocol that has any, by the names of the protocols."""
    return {
        name: summarise(counted, layout.by)
        for name, protocol in layout.protocols.items()
        if len(counted := take_errors(rows, protocol.suffix))
    }


def make_tables(summary: pd.DataFrame, layout: Layout) -> str:
    """Write a table in Markdown for each problem; its lowest errors are bold."""
    parts = []
    for problem, rows in summary.groupby(list(layout.by), sort=False):
        best = rows[["mae", "rmse"]].min()
        digits = layout.digits(*problem)
        lines = [_write_line(key[-1], row, best, digits) for key, row in rows.iterrows()]
        parts += [f"**{layout.title(*problem)}**", markdown(HEAD, lines)]
    return "\n\n".join(parts)


def _write_line(model: str, row: pd.Series, best: pd.Series, digits: int) -> list[str]:
    return [
        model,
        f"{row['seeds']:.0f}",
        *(_write_error(row, name, best[name], digits) for name in ("mae", "rmse")),
        *(_number(row[f"{name} / MLP"], ".3f") for name in ("mae", "rmse")),
        f"{row['fit_s']:.0f}",
        _number(row["fit_s / MLP"], ".1f"),
        f"{_two_digits(row['pairs_per_s']):,.0f}",
        f"{row['peak_mb']:,.0f}",
    ]


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
