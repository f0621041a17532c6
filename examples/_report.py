"""What the benchmarks write: tables in Markdown, figures, tables between the marks of a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from _runs import read_rows

BASELINE = "embedding MLP"
RELATIVE = ("mae", "rmse", "fit_s")


@dataclass(frozen=True)
class Protocol:
    """Which test cells count, and how a table of their errors is headed."""

    suffix: str
    title: str
    note: str = ""


@dataclass(frozen=True)
class Layout:
    """How the tables of a benchmark look.

    Parameters
    ----------
    by : tuple of str
        Columns that tell one problem from another.

    head : tuple of str
        The headings of a problem's cells.

    cells : callable
        Turns a problem into its cells.

    digits : callable
        Turns a problem into the digits of its errors.

    models : sequence of str
        The order of the rows.

    protocols : mapping of str to Protocol
        The tables, by the name of their marks.
    """

    by: tuple[str, ...]
    head: tuple[str, ...]
    cells: Callable[..., list[str]]
    digits: Callable[..., int]
    models: Sequence[str]
    protocols: Mapping[str, Protocol]


def read_results(paths: Iterable[Path], layout: Layout) -> pd.DataFrame:
    """Read the results of one or more runs in the order of the tables."""
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
    """Put the errors of another protocol in the place of the others, where there are any."""
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
    """Average over seeds, with deviations of the errors."""
    groups = add_ratios(rows, by).groupby([*by, "model"], sort=False)
    ratios = [f"{name} / MLP" for name in RELATIVE]
    result = groups[["mae", "rmse", "fit_s", "pairs_per_s", "peak_mb", *ratios]].mean()
    deviations = groups[["mae", "rmse"]].std(ddof=0).add_suffix("_std")
    return result.join(deviations).assign(seeds=groups["seed"].nunique())


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    lines.insert(1, "|---" * len(head) + "|")
    return "\n".join(lines)


def make_table(summary: pd.DataFrame, layout: Layout) -> str:
    """Write a summary as a table of Markdown."""
    table = []
    for (*problem, model), row in summary.iterrows():
        digits = layout.digits(*problem)
        errors = [
            f"{row[name]:.{digits}f} ({row[f'{name}_std']:.{digits}f})" for name in ("mae", "rmse")
        ]
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


def _number(value: float, spec: str) -> str:
    """Write a ratio; there is none without the baseline."""
    return "" if np.isnan(value) else format(value, spec)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def write_between_marks(path: Path, tables: Mapping[str, str]) -> None:
    """Replace what stands between the marks of each table that the file has marks for."""
    text = path.read_text()
    found = False
    for name, table in tables.items():
        begin, end = (f"<!-- {name}: {mark} -->" for mark in ("begin", "end"))
        if begin not in text:
            continue
        found = True
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{table}\n{end}{after}"
    if not found:
        raise ValueError(f"{path} has none of the marks '<!-- NAME: begin -->' of {list(tables)}.")
    path.write_text(text)


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
    summaries = {
        name: summarise(counted, layout.by)
        for name, protocol in layout.protocols.items()
        if len(counted := take_errors(rows, protocol.suffix))
    }
    tables = {name: make_table(summary, layout) for name, summary in summaries.items()}
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


def write_figures(folder: Path, rows: pd.DataFrame, layout: Layout) -> None:
    """Draw the figures, if matplotlib is there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no figures: matplotlib is not installed")
        return
    rows = add_ratios(rows, layout.by)
    problems = list(rows.groupby(list(layout.by), sort=False))
    for name, (draw, width) in FIGURES.items():
        figure = Figure(figsize=(width * len(problems), 5), layout="constrained")
        panels = figure.subplots(1, len(problems), squeeze=False)[0]
        for axes, (problem, part) in zip(panels, problems, strict=True):
            axes.set_title(", ".join(layout.cells(*problem)))
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
    """Mean absolute error against the time to fit, a point a model."""
    means = rows.groupby("model", sort=False)[["fit_s", "mae"]].mean()
    for place, (name, mean) in enumerate(means.iterrows()):
        axes.plot(*mean, MARKERS[place // 10 % len(MARKERS)], color=f"C{place % 10}", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("fit, CPU s")
    axes.set_ylabel("MAE")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")


MARKERS = "osD^v"
FIGURES = {"errors.png": (draw_errors, 6), "error_against_time.png": (draw_time, 8)}
