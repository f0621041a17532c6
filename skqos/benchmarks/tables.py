"""Errors and costs as tables in Markdown: means over the seeds, relative to a baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from skqos.benchmarks._results import deviation
from skqos.benchmarks.markdown import markdown, write_best, write_numbers
from skqos.benchmarks.runs import read_rows
from skqos.benchmarks.scores import CHOICES

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
    """Replace the errors by those of another protocol, if there are any.

    Choices are those among all test cells, so that other protocols have none.
    """
    errors = {name: rows[f"{name}{protocol}"] for name in ("mae", "rmse")}
    others = rows.drop(columns=[*CHOICES], errors="ignore") if protocol else rows
    return others.assign(**errors).dropna(subset="mae")


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
    choices = [name for name in CHOICES if name in rows]
    result = groups[["mae", "rmse", *choices, "fit_s", "pairs_per_s", "peak_mb", *ratios]].mean()
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
    """Write a table in Markdown for each problem; its best scores are bold."""
    parts = []
    for problem, rows in summary.groupby(list(layout.by), sort=False):
        table = _make_table(rows, layout.digits(*problem))
        parts += [f"**{layout.title(*problem)}**", table]
    return "\n\n".join(parts)


def _make_table(rows: pd.DataFrame, digits: int) -> str:
    columns = {
        "model": rows.index.get_level_values("model").tolist(),
        "seeds": write_numbers(rows["seeds"], ".0f"),
        "MAE (deviation)": _write_errors(rows, "mae", digits),
        "RMSE (deviation)": _write_errors(rows, "rmse", digits),
        "MAE / MLP": write_numbers(rows["mae / MLP"], ".3f"),
        "RMSE / MLP": write_numbers(rows["rmse / MLP"], ".3f"),
        **_write_choices(rows, digits),
        "fit, CPU s": write_numbers(rows["fit_s"], ".0f"),
        "fit / MLP": write_numbers(rows["fit_s / MLP"], ".1f"),
        "pairs / CPU s": write_numbers(rows["pairs_per_s"].map(_two_digits), ",.0f"),
        "peak memory, MB": write_numbers(rows["peak_mb"], ",.0f"),
    }
    return markdown(list(columns), zip(*columns.values(), strict=True))


def _write_errors(rows: pd.DataFrame, name: str, digits: int) -> list[str]:
    """Return means with their deviations as text; without deviation for one seed."""
    means = write_best(rows[name], f".{digits}f")
    deviations = write_numbers(rows[f"{name}_std"], f".{digits}f")
    return [
        f"{mean} ({spread})" if spread else mean
        for mean, spread in zip(means, deviations, strict=True)
    ]


def _write_choices(rows: pd.DataFrame, digits: int) -> dict[str, list[str]]:
    """Return the columns of choices among ten services of a user, if they were measured."""
    if rows.reindex(columns=CHOICES).isna().all(axis=None):
        return {}
    regret, near_best = (rows[name] for name in CHOICES)
    return {
        "regret": write_best(regret, f".{digits}f"),
        "near the best": write_best(near_best, ".2f", highest=True),
    }


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")
