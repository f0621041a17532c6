"""All tables of the README and the documentation, from the stored results."""

from __future__ import annotations

from pathlib import Path

from skqos.benchmarks import (
    accuracy,
    baseline_table,
    cold_start_table,
    export_tables,
    forecast_table,
    interval_tables,
    stream_tables,
    update_tables,
)
from skqos.benchmarks.ablation_report import load_ablations, make_page_tables
from skqos.benchmarks.markdown import find_marks, write_between_marks
from skqos.benchmarks.peers_table import make_peers_table


def make_all_tables() -> dict[str, str]:
    """Write all tables of stored results in Markdown, by the names of their marks.

    Examples
    --------
    >>> from skqos.benchmarks.pages import make_all_tables
    >>> "| SAMoERegressor |" in make_all_tables()["results"]
    True
    """
    return {
        **accuracy.make_stored_tables(),
        **make_page_tables(load_ablations("former")),
        **make_page_tables(load_ablations("present"), "-present"),
        **interval_tables.make_stored_tables(),
        **update_tables.make_stored_tables(),
        **export_tables.make_stored_tables(),
        "peers": make_peers_table(),
        "stream": stream_tables.make_stored_table(),
        "cold start": cold_start_table.make_stored_table(),
        "forecasts": forecast_table.make_stored_table(),
        "reproduced baselines": baseline_table.make_stored_table(),
    }


def find_pages(folder: Path) -> list[Path]:
    """Return the README and the pages of ``docs`` that have marks of tables.

    Raises
    ------
    FileNotFoundError
        If there are none.
    """
    candidates = [folder / "README.md", *sorted((folder / "docs").glob("*.md"))]
    pages = [path for path in candidates if path.is_file() and find_marks(path.read_text())]
    if not pages:
        raise FileNotFoundError(
            f"{folder.resolve()} has no README.md or docs/*.md with marks of tables: run the "
            "command in a checkout of skqos, or name the files."
        )
    return pages


def write_pages(paths: list[Path]) -> None:
    """Write the tables of stored results between their marks in all pages.

    Raises
    ------
    ValueError
        If a page has marks without a table, or none.
    """
    tables = make_all_tables()
    for path in paths:
        if unknown := [mark for mark in find_marks(path.read_text()) if mark not in tables]:
            raise ValueError(f"{path}: no table of these marks: {unknown}; there are {[*tables]}.")
        write_between_marks(path, tables)
