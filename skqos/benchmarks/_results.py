"""Our results, which are stored in the package."""

from __future__ import annotations

import re
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd

from skqos.benchmarks._splits import RECIPES
from skqos.benchmarks.runs import read_rows

KEYS = ["split", "model", "seed"]
PROVENANCE = ["date", "version", "machine", "command"]
# Other columns of the examples, such as those of single limits, are only in the files.
METRICS = [
    *("mae", "rmse", "nmae", "mae_filtered", "rmse_filtered", "mae_answered", "rmse_answered"),
    *("regret", "near_best", "coverage", "winkler"),
    *("fit_s", "predict_s", "pairs_per_s", "peak_mb"),
]
TASK = re.compile(
    r"(imputation|forecast) ([\d.]+) % of slot 63 from 8|(forecast_all) of slot 63 .*"
)
CELLS = {
    "given": "wsdream1-{}-0.025",
    "users": "wsdream1-{}-new-users",
    "services": "wsdream1-{}-new-services",
    "slot 63": "wsdream2-{}-imputation-0.1",
}


def load_results() -> pd.DataFrame:
    """Load the results that are stored in the package.

    Returns
    -------
    DataFrame
        One row for each measured number, with the columns

        - ``split``: name of the split, as in `list_splits`;
        - ``data_set``, ``qos`` and ``density``: as in `load_published_results`;
        - ``model`` and ``seed``;
        - ``metric`` and ``value``: a score or a cost of `evaluate`, or ``pairs_per_s``, pairs
          predicted per CPU second, or ``mae_answered`` and ``rmse_answered``, errors on the test
          cells without time-outs;
        - ``date``, ``version``, ``machine`` and ``command``: date, version of skqos, machine and
          command of the measurement.

    See Also
    --------
    summarize_results : Mean and standard deviation over the seeds.
    load_published_results : Results of papers and public repositories.

    Examples
    --------
    >>> from skqos.benchmarks import load_results
    >>> results = load_results()
    >>> bool((results["metric"] == "mae").any())
    True
    """
    with as_file(files("skqos.benchmarks") / "results") as folder:
        runs = pd.read_csv(folder / "runs.csv", dtype=str).query("kind == 'fits'")
        rows = pd.concat([_read(folder, run) for _, run in runs.iterrows()], ignore_index=True)
    columns = [*KEYS, *PROVENANCE]
    figures = rows.melt(columns, METRICS, "metric", "value", ignore_index=False)
    figures = figures.dropna(subset="value").sort_index(kind="stable").reset_index(drop=True)
    for column in ("data_set", "qos", "density"):
        figures[column] = [getattr(RECIPES.get(name), column, None) for name in figures["split"]]
    told = ["split", "data_set", "qos", "density", "model", "seed", "metric", "value"]
    return figures[[*told, *PROVENANCE]]


def summarize_results(results: pd.DataFrame) -> pd.DataFrame:
    """Average results over the seeds.

    Parameters
    ----------
    results : DataFrame
        Result of `load_results`, or a part of it.

    Returns
    -------
    DataFrame
        One row for each split, model, metric and origin, with ``mean``, ``std`` and ``seeds``. The
        standard deviation is that of the population, and NaN for a single seed.

    Examples
    --------
    >>> from skqos.benchmarks import load_results, summarize_results
    >>> summary = summarize_results(load_results())
    >>> bool(summary.loc[summary["seeds"] == 1, "std"].isna().all())
    True
    """
    keys = [name for name in results if name not in ("seed", "value")]
    groups = results.groupby(keys, sort=False, dropna=False)
    summary = groups["value"].agg(mean="mean", std=deviation).join(groups["seed"].nunique())
    return summary.rename(columns={"seed": "seeds"}).reset_index()


def read_stored(name: str) -> pd.DataFrame:
    """Read one of the stored files of results."""
    with as_file(files("skqos.benchmarks") / "results" / name) as path:
        return read_rows(path)


def average_over_seeds(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Average the numbers of rows with the same keys, in the order of the rows.

    Parameters
    ----------
    rows : DataFrame
        One row for a seed. If there is a column ``seeds``, a row with a number in it is a mean over
        so many seeds.

    keys : list of str
        Columns that identify what is averaged.

    Returns
    -------
    DataFrame
        The means and ``seeds``, the number of seeds, by the keys.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos.benchmarks._results import average_over_seeds
    >>> rows = pd.DataFrame({"model": ["a", "a"], "seed": [0, 1], "mae": [1.0, 3.0]})
    >>> average_over_seeds(rows, ["model"]).loc["a"].to_dict()
    {'mae': 2.0, 'seeds': 2.0}
    """
    seeds = rows["seeds"].fillna(1) if "seeds" in rows else rows.assign(seeds=1)["seeds"]
    numbers = rows.drop(columns=["seed", "seeds"], errors="ignore").assign(seeds=seeds)
    groups = numbers.groupby(keys, sort=False)
    return groups.mean(numeric_only=True).assign(seeds=groups["seeds"].sum())


def deviation(values: pd.Series) -> float:
    """Return the standard deviation of the population, NaN for a single value.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos.benchmarks._results import deviation
    >>> deviation(pd.Series([1.0, 3.0])), deviation(pd.Series([1.0]))
    (1.0, nan)
    """
    return float(values.std(ddof=0)) if len(values) > 1 else np.nan


def _read(folder: Path, run: pd.Series) -> pd.DataFrame:
    """Read one file, and complete the origin of its rows from ``runs.csv``."""
    rows = _name_splits(read_rows(folder / run["file"]))
    for column in PROVENANCE:
        if column not in rows:
            rows[column] = run[column]
    return rows.reindex(columns=[*KEYS, *PROVENANCE, *METRICS])


def _name_splits(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the names of the splits to rows of the examples."""
    if "split" in rows:
        return rows
    if "cells" in rows:
        names = [CELLS[row.cells].format(row.qos) for row in rows.itertuples()]
        return rows.assign(split=names, model=rows["model"] + ", intervals")
    if "task" in rows:
        return rows.assign(split=rows["task"].map(_name_task))
    names = [f"wsdream1-{row.qos}-{row.density:g}" for row in rows.itertuples()]
    return rows.assign(split=names)


def _name_task(task: str) -> str:
    """Return the name of a task of data set 2; a task without split keeps its name."""
    found = TASK.fullmatch(task)
    if found is None:
        return task
    protocol, percent, all_cells = found.groups()
    return (
        "wsdream2-rt-forecast-all"
        if all_cells
        else f"wsdream2-rt-{protocol}-{float(percent) / 100:g}"
    )
