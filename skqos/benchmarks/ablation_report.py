"""Tables and figures of the variants of a method, relative to their references."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from skqos import __version__
from skqos.benchmarks.ablations import DEFAULT, METHODS, SETTINGS, Method
from skqos.benchmarks.differences import compare
from skqos.benchmarks.markdown import markdown
from skqos.benchmarks.runs import read_rows

logger = logging.getLogger("skqos.benchmarks")

RESULTS, USER_ERRORS, SUMMARY = "results.csv", "user_errors.csv", "ablations.csv"
# Stored summaries by the defaults that the parts are relative to.
STORED = {"former": SUMMARY, "present": "ablations_present.csv"}
KEYS = ["split", "fold", "model", "seed"]
TEST = "test"
NOTE = (
    'The difference is that of the MAE to the variant in the column "compared with", with its '
    "95 % confidence interval: cells are paired, users are the independent units of its variance, "
    "and the variance between seeds is added if there are several. Negative is better. Times are "
    "CPU seconds of a fit; a joint fit counts half for each QoS."
)
HEAD = ["cells", "variant", "compared with", "seeds", "MAE", "RMSE", "difference of MAE, %"]
HEAD += ["by seed, %", "difference of RMSE, %", "fit, CPU s", "device"]


def read_runs(folders: Iterable[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the results of fits and the errors by user; later folders replace earlier ones.

    Raises
    ------
    ValueError
        If there are no results of this benchmark.
    """
    folders = list(folders)
    rows = pd.concat([_read(folder / RESULTS) for folder in folders], ignore_index=True)
    errors = pd.concat([_read(folder / USER_ERRORS) for folder in folders], ignore_index=True)
    return (
        rows.drop_duplicates(KEYS, keep="last"),
        errors.drop_duplicates([*KEYS, "user"], keep="last"),
    )


def summarise(rows: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds and folds, and compare each variant with its reference.

    Returns
    -------
    DataFrame
        One row for each method, split, kind of cells ("test" or "validation") and variant, in the
        order of the methods.
    """
    rows, errors = (
        table.assign(cells=np.where(table["fold"] == TEST, TEST, "validation"))
        for table in (rows, errors)
    )
    by_model = dict(list(errors.groupby(["split", "cells", "model"])))
    found = []
    for name, method in METHODS.items():
        for part in method.parts:
            of_model = rows[rows["model"] == method.label(part.name)]
            for (split, cells), group in of_model.groupby(["split", "cells"], sort=False):
                key = split, cells, method.label(part.name)
                reference = by_model.get((split, cells, method.label(part.reference)))
                line = {"method": name, "split": split, "cells": cells, "part": part.name}
                line |= {"group": part.group, "reference": part.reference}
                found.append({**line, **_describe(group), **_compare(by_model[key], reference)})
    order = [name for method in METHODS.values() for name in _split_names(method)]
    table = pd.DataFrame(found)
    place = table["split"].map(order.index)
    ordered = table.assign(place=place).sort_values(["cells", "place"], kind="stable")
    return ordered.drop(columns="place")


def make_table(summary: pd.DataFrame) -> str:
    """Write the variants of one method as a table of Markdown."""
    lines = []
    for row in summary.itertuples():
        is_default = row.part == row.reference
        signs = [
            f"{row.difference:+.1f} ± {row.half_width:.1f}",
            row.by_seed,
            f"{row.rmse_difference:+.1f}",
        ]
        lines.append(
            [
                f"{row.split}, {row.cells}",
                row.part,
                "" if is_default else row.reference,
                f"{row.seeds}",
                f"{row.mae:.4g}",
                f"{row.rmse:.4g}",
                *(["", "", ""] if is_default or np.isnan(row.difference) else signs),
                f"{row.fit_s:.0f}",
                row.device,
            ]
        )
    return markdown(HEAD, lines)


def write_report(folder: Path, rows: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """Write the summary, tables and a figure for each method; return the summary.

    The files are ``ablations.csv``, ``ablations.md`` and an image with the name of each method.
    """
    summary = summarise(rows, errors)
    dated = summary.assign(date=f"{datetime.now(UTC):%Y-%m-%d}", version=__version__)
    dated.to_csv(folder / SUMMARY, index=False)
    parts = ["# Ablations", NOTE]
    for name, of_method in summary.groupby("method", sort=False):
        parts += [f"## {METHODS[name].title}", make_table(of_method)]
        if draw(of_method, folder / f"{name}.png"):
            parts.append(f"![{METHODS[name].title}]({name}.png)")
    (folder / "ablations.md").write_text("\n\n".join(parts) + "\n")
    return summary


def load_ablations(defaults: Literal["former", "present"] = "former") -> pd.DataFrame:
    """Load a stored summary: the columns of `summarise`, and the date and version of the report.

    Parameters
    ----------
    defaults : {"former", "present"}, default="former"
        The default parameters that the parts are relative to. The summary of the former ones has
        more parts, splits and seeds.

    Examples
    --------
    >>> from skqos.benchmarks.ablation_report import load_ablations
    >>> {*load_ablations()["cells"]}
    {'test'}
    """
    with as_file(files("skqos.benchmarks") / "results" / STORED[defaults]) as path:
        return pd.read_csv(path).fillna({"by_seed": ""})


def make_page_tables(summary: pd.DataFrame, suffix: str = "") -> dict[str, str]:
    """Write a table for each method with a row per variant and a column per split.

    Returns
    -------
    dict of str to str
        The tables by the names of their marks, such as "ablations-r2sl", and `suffix` behind it.
    """
    return {
        f"ablations-{name}{suffix}": _make_wide_table(of_method)
        for name, of_method in summary.groupby("method", sort=False)
    }


def label_split(name: str) -> str:
    """Return the QoS and the setting of a split of the ablations.

    Examples
    --------
    >>> from skqos.benchmarks.ablation_report import label_split
    >>> label_split("wsdream1-tp-0.005"), label_split("wsdream2-rt-imputation-0.1")
    ('TP, 0.5 %', 'RT, slot 63')
    """
    for setting, pattern in SETTINGS.items():
        for qos in ("rt", "tp"):
            if pattern.format(qos) == name:
                is_density = setting.startswith("0.")
                title = f"{100 * float(setting):g} %" if is_density else setting.replace("-", " ")
                return f"{qos.upper()}, {title}"
    raise ValueError(f"{name!r} is not a split of the ablations.")


def _make_wide_table(summary: pd.DataFrame) -> str:
    splits = list(dict.fromkeys(summary["split"]))
    head = ["variant", "compared with", *map(label_split, splits)]
    lines = []
    for part, rows in summary.groupby("part", sort=False):
        by_split = rows.set_index("split", drop=False)
        reference = "" if part == DEFAULT else rows["reference"].iloc[0]
        cells = (_describe_cell(by_split, split) for split in splits)
        times = "" if part == DEFAULT else _describe_time(by_split, summary)
        lines.append([part, reference, *cells, times])
    # Times on a GPU that several fits share do not show the cost of a variant.
    if (summary["device"] == "cpu").all():
        return markdown([*head, "fit, times the default"], lines)
    return markdown(head, [line[:-1] for line in lines])


def _describe_time(by_split: pd.DataFrame, summary: pd.DataFrame) -> str:
    default_s = summary[summary["part"] == DEFAULT].set_index("split")["fit_s"]
    return f"{(by_split['fit_s'] / default_s).mean():.1f}"


def _describe_cell(by_split: pd.DataFrame, split: str) -> str:
    """Return the MAE of the default, or the difference of the MAE of a variant in per cent."""
    if split not in by_split.index:
        return ""
    row = by_split.loc[split]
    if row["part"] == DEFAULT:
        return f"{row['mae']:.4g}"
    if np.isnan(row["difference"]):
        return ""
    text = f"{row['difference']:+.1f} ± {row['half_width']:.1f}"
    # Bold where the interval excludes 0.
    return f"**{text}**" if abs(row["difference"]) > row["half_width"] else text


def draw(summary: pd.DataFrame, path: Path) -> bool:
    """Draw the differences of one method, one panel per split; return whether there are any."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("no figures: matplotlib is not installed")
        return False
    shown = summary[summary["part"] != summary["reference"]].dropna(subset="difference")
    if shown.empty:
        return False
    names = list(dict.fromkeys(shown["part"]))[::-1]
    panels = list(shown.groupby(["split", "cells"], sort=False))
    size = 2 + 3 * len(panels), 1.5 + 0.28 * len(names)
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, ((split, cells), part) in zip(places, panels, strict=True):
        rows = part["part"].map(names.index)
        axes.errorbar(part["difference"], rows, xerr=part["half_width"], fmt="o", markersize=4)
        axes.axvline(0, color="grey", linewidth=1, linestyle=":")
        axes.set(title=f"{split}\n{cells}", xlabel="difference of MAE, %")
        axes.set_yticks(range(len(names)), names)
    figure.savefig(path, dpi=120)
    return True


def _read(path: Path) -> pd.DataFrame:
    rows = read_rows(path, dtype=None)
    if not {*KEYS} <= {*rows.columns}:
        raise ValueError(f"{path} must have the columns {KEYS}; got {list(rows.columns)}.")
    return rows.assign(fold=rows["fold"].astype(str))


def _split_names(method: Method) -> list[str]:
    return [
        name
        for setting in method.settings
        for group in method.groups(setting, method.qos)
        for name in group
    ]


def _describe(rows: pd.DataFrame) -> dict[str, object]:
    means = rows[["mae", "rmse", "fit_s"]].mean().to_dict()
    devices = ", ".join(sorted(rows["device"].unique()))
    return {"seeds": rows["seed"].nunique(), **means, "device": devices}


def _take_common(
    errors: pd.DataFrame, reference: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of the seeds and folds that both have."""
    if reference is None:
        return errors.iloc[:0], errors.iloc[:0]
    both = pd.merge(*(table[["seed", "fold"]].drop_duplicates() for table in (errors, reference)))
    return errors.merge(both), reference.merge(both)


def _compare(errors: pd.DataFrame, reference: pd.DataFrame | None) -> dict[str, object]:
    """Return differences in per cent, NaN without results of the reference."""
    errors, reference = _take_common(errors, reference)
    if errors.empty:
        nothing = dict.fromkeys(("difference", "half_width", "rmse_difference"), np.nan)
        return {**nothing, "by_seed": ""}
    found = compare(errors, reference)
    return {
        "difference": 100 * found.mae,
        "half_width": 100 * found.half_width,
        "rmse_difference": 100 * found.rmse,
        "by_seed": ", ".join(f"{100 * value:+.1f}" for value in found.by_seed),
    }
