"""The tables of what an exported model costs beside the model itself."""

from __future__ import annotations

import pandas as pd

from skqos.benchmarks._results import read_stored
from skqos.benchmarks.markdown import markdown, write_best, write_numbers

# Titles and digits of the costs.
COSTS = {
    "file_mb": ("file, MB", ".1f"),
    "start_s": ("start, CPU s", ".2g"),
    "peak_mb": ("peak memory, MB", ".0f"),
    "pair_ms": ("one pair, ms", ".1f"),
    "user_ms": ("one user with all services, ms", ".0f"),
    "pairs_us": ("many pairs, µs per pair", ".1f"),
}


def make_export_tables(rows: pd.DataFrame) -> dict[str, str]:
    """Write costs and differences of exported models, by the names of their marks.

    The lowest costs of each model are bold.

    Parameters
    ----------
    rows : DataFrame
        Rows of ``examples/benchmark_export.py``: one for each ``model`` and ``predictor``.
    """
    lines = []
    for model, of_model in rows.groupby("model", sort=False):
        columns = [_write_costs(of_model[name], spec) for name, (_, spec) in COSTS.items()]
        names = zip(of_model["predictor"], *columns, strict=True)
        lines += [[f"`{model}`", f"`{predictor}`", *costs] for predictor, *costs in names]
    head = ["model", "predictor", *(title for title, _ in COSTS.values())]
    exported = rows.dropna(subset="difference")
    differences = [
        [f"`{row.model}`", f"{row.export_s:.0f}", f"{row.difference:.1e}".replace("e-0", "e-")]
        for row in exported.itertuples()
    ]
    return {
        "export": markdown(head, lines),
        "export differences": markdown(
            ["model", "export, CPU s", "largest relative difference"], differences
        ),
    }


def _write_costs(values: pd.Series, spec: str) -> list[str]:
    return write_best(values, spec) if len(values) > 1 else write_numbers(values, spec)


def make_stored_tables() -> dict[str, str]:
    """Write the tables of the stored costs."""
    return make_export_tables(read_stored("export.csv"))
