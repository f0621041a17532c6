"""What the benchmarks leave behind: a page with all tables, figures, tables between marks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from skqos.benchmarks.figures import FIGURES, write_figures
from skqos.benchmarks.markdown import write_between_marks
from skqos.benchmarks.tables import Layout, make_tables, read_results, summarise_protocols


def write_report(
    path: Path, title: str, layout: Layout, tables: Mapping[str, str], published: str
) -> None:
    """Write all tables and the figures as one page."""
    parts = [f"# {title}"]
    for name, table in tables.items():
        protocol = layout.protocols[name]
        parts += [f"## {protocol.title}", *([protocol.note] if protocol.note else []), table]
    parts += ["## Published figures beside ours", published]
    parts += [f"![{name}]({name})" for name in FIGURES if (path.parent / name).exists()]
    path.write_text("\n\n".join(parts) + "\n")


def report(
    args: argparse.Namespace,
    title: str,
    layout: Layout,
    publish: Callable[[Mapping[str, pd.DataFrame]], str],
    published_mark: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write what was asked for from one or more runs; return all rows and the first summary."""
    rows = read_results(args.table or [args.out / "results.csv"], layout)
    summaries = summarise_protocols(rows, layout)
    tables = {name: make_tables(summary, layout) for name, summary in summaries.items()}
    published = publish(summaries)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_figures(args.out, rows, layout)
        write_report(args.out / "results.md", title, layout, tables, published)
    if args.figures:
        args.figures.mkdir(parents=True, exist_ok=True)
        write_figures(args.figures, rows, layout)
    for path in args.readme or ():
        write_between_marks(path, {**tables, published_mark: published})
    first = next(iter(summaries.values()))
    print(first.to_string(float_format="{:.4g}".format))
    return rows, first
