"""The table and the figure of errors slot by slot over a stream."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from skqos.benchmarks._results import read_stored
from skqos.benchmarks.markdown import markdown, write_best, write_numbers

# The first slots are those in which all methods have little.
FIRST_COUNTED = 16
REFIT_EVERY = 8
REFITS, UPDATES = "TPMCF, refits", "TPMCF with updates"
# The order of the table; other methods are last.
METHODS = (
    "pair median",
    "weighted mean",
    "AMF",
    "EmbeddingMLP with updates",
    "TPMCF without updates",
    "TPMCF, updates without training",
    UPDATES,
    REFITS,
)
COLUMNS = {
    "mae": ("MAE, s", ".3f"),
    "rmse": ("RMSE, s", ".3f"),
    "learn_s": ("learning, s a slot", ".2f"),
    "mae / refits": ("MAE / refits", ".3f"),
    "learn_s / refit": ("learning / a refit", ".1%"),
}


def read_results(paths: Iterable[Path]) -> pd.DataFrame:
    """Read results; a slot that was interrupted between row and model is there twice."""
    rows = pd.concat(map(pd.read_csv, paths), ignore_index=True)
    return rows.drop_duplicates(["method", "seed", "slot"], keep="last")


def list_methods(rows: pd.DataFrame) -> list[str]:
    """Return the methods of some rows in the order of the table."""
    there = list(dict.fromkeys(rows["method"]))
    return sorted(there, key=lambda name: METHODS.index(name) if name in METHODS else len(METHODS))


def summarise(rows: pd.DataFrame, first_counted: int = FIRST_COUNTED) -> pd.DataFrame:
    """Average over the slots from `first_counted` on, relative to the refits."""
    counted = rows[rows["slot"] >= first_counted]
    summary = counted.groupby("method")[["mae", "rmse", "learn_s"]].mean()
    summary = summary.reindex(list_methods(counted))
    if REFITS in summary.index:
        fits = counted.loc[(counted["method"] == REFITS) & (counted["slot"] % REFIT_EVERY == 0)]
        summary["mae / refits"] = summary["mae"] / summary.loc[REFITS, "mae"]
        summary["learn_s / refit"] = summary["learn_s"] / fits["learn_s"].mean()
    return summary


def make_table(summary: pd.DataFrame) -> str:
    """Write a summary as a table in Markdown; the lowest errors are bold."""
    columns = []
    for name in summary:
        write = write_best if name in ("mae", "rmse") else write_numbers
        columns.append(write(summary[name], COLUMNS[name][1]))
    head = ["method", *(COLUMNS[name][0] for name in summary)]
    return markdown(head, zip(summary.index, *columns, strict=True))


def make_stored_table() -> str:
    """Write the table of the stored stream."""
    return make_table(summarise(read_stored("stream.csv")))


def draw_errors(axes: Any, rows: pd.DataFrame) -> None:
    """Draw the error of each method slot by slot."""
    for name in list_methods(rows):
        of_method = rows[rows["method"] == name].groupby("slot")["mae"].mean()
        axes.plot(of_method.index, of_method, label=name)
    axes.set(xlabel="slot", ylabel="MAE, s")
    axes.legend(fontsize="small")
