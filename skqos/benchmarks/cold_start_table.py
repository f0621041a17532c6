"""The table of errors for users and services without training rows."""

from __future__ import annotations

import pandas as pd

from skqos.benchmarks._results import average_over_seeds, read_stored
from skqos.benchmarks.markdown import markdown, write_best
from skqos.benchmarks.qos_titles import LABELS


def make_cold_start_table(rows: pd.DataFrame) -> str:
    """Write the MAE of each model on the cells of unknown users and services; the lowest is bold.

    Parameters
    ----------
    rows : DataFrame
        Rows with ``split``, ``model``, ``seed`` and ``mae``.
    """
    errors = average_over_seeds(rows, ["split", "model"])["mae"]
    head, columns = ["model"], []
    names = list(dict.fromkeys(rows["model"]))
    for split, of_split in errors.groupby(level="split", sort=False):
        qos, what = split.split("-")[1], split.split("-new-")[1]
        title, digits = LABELS[qos]
        head.append(f"new {what}, {title}")
        values = of_split.droplevel("split").reindex(names)
        columns.append(write_best(values, f".{digits}f"))
    return markdown(head, zip(names, *columns, strict=True))


def make_stored_table() -> str:
    """Write the table of the stored results."""
    return make_cold_start_table(read_stored("cold_start.csv"))
