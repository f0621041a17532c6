"""The tables of updates by `partial_fit`: further cells, new entities, few measurements."""

from __future__ import annotations

import pandas as pd

from skqos.benchmarks._results import average_over_seeds, read_stored
from skqos.benchmarks.markdown import markdown, write_best, write_numbers
from skqos.benchmarks.qos_titles import LABELS

CELLS_HEAD = ["model", "seeds", "MAE before", "updated", "refit", "recovery"]
CELLS_HEAD += ["fit, s", "update, s", "refit, s", "update / refit"]
ENTITY_ERRORS = ("before", "updated", "service median", "others before", "others updated")
ENTITY_HEAD = ["rows of", "model", "seeds", "MAE before", "updated", "service median"]
ENTITY_HEAD += ["others before", "updated"]


def make_update_tables(results: pd.DataFrame) -> dict[str, str]:
    """Write the results of updates as tables in Markdown, by the names of their marks.

    Parameters
    ----------
    results : DataFrame
        Rows of ``examples/benchmark_partial_fit.py``. The column ``new`` says what is new: "cells",
        "users" or "services".
    """
    means = average_over_seeds(results, ["new", "model"])
    is_cells = means.index.get_level_values("new") == "cells"
    tables = {}
    if is_cells.any():
        tables["cells"] = _make_cells_table(means[is_cells])
    if not is_cells.all():
        tables["entities"] = _make_entity_table(means[~is_cells])
    return tables


def _make_cells_table(means: pd.DataFrame) -> str:
    columns = [
        means.index.get_level_values("model"),
        write_numbers(means["seeds"], ".0f"),
        *(_write_errors(means[name]) for name in ("before", "updated", "refit")),
        write_best(means["recovery"], ".0%", highest=True),
        *(write_numbers(means[name], ".0f") for name in ("fit_s", "update_s", "refit_s")),
        write_numbers(means["time"], ".0%"),
    ]
    return markdown(CELLS_HEAD, zip(*columns, strict=True))


def _make_entity_table(means: pd.DataFrame) -> str:
    lines = []
    for new, rows in means.groupby("new", sort=False):
        columns = [
            rows.index.get_level_values("model"),
            write_numbers(rows["seeds"], ".0f"),
            *(_write_errors(rows[name]) for name in ENTITY_ERRORS),
        ]
        lines += [[f"new {new}", *cells] for cells in zip(*columns, strict=True)]
    return markdown(ENTITY_HEAD, lines)


def _write_errors(errors: pd.Series) -> list[str]:
    texts = write_numbers(errors, ".4f")
    # The median is the same for all models.
    return write_best(errors, ".4f") if len(set(texts)) > 1 else texts


def average_few_shot(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the MAE over the seeds: a row for a QoS, a model and an update, a column a number."""
    order = ["qos", "model", "update"]
    # A run with further QoS measures the earlier ones again.
    rows = rows.drop_duplicates(["seed", *order, "n_measured"], keep="last")
    means = rows.groupby([*order, "n_measured"], sort=False)["mae"].mean()
    return means.unstack("n_measured").sort_index(level="qos", sort_remaining=False)


def make_few_shot_table(errors: pd.DataFrame) -> str:
    """Write the result of `average_few_shot` as a table; the lowest errors are bold."""
    lines = []
    for qos, rows in errors.groupby(level="qos", sort=False):
        title, digits = LABELS[qos]
        columns = [write_best(rows[n], f".{digits}f") for n in rows]
        names = [(title, model, update) for _, model, update in rows.index]
        lines += [[*name, *cells] for name, *cells in zip(names, *columns, strict=True)]
    return markdown(["QoS", "model", "update", *map(str, errors.columns)], lines)


def make_stored_tables() -> dict[str, str]:
    """Write all tables of stored updates, by the names of their marks."""
    few_shot = average_few_shot(read_stored("few_shot.csv"))
    updates = make_update_tables(read_stored("partial_fit.csv"))
    return updates | {"few shot": make_few_shot_table(few_shot)}
