"""Runs with the settings of a paper, compared with its published figures."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import pandas as pd

from skqos.benchmarks._names import check_known
from skqos.benchmarks._papers import PAPERS, Paper
from skqos.benchmarks._published import load_published_results
from skqos.benchmarks._results import deviation
from skqos.benchmarks._run import run
from skqos.benchmarks._splits import RECIPES
from skqos.benchmarks.markdown import markdown


def reproduce(
    method: str,
    year: int,
    split: str,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    jobs: int = 1,
) -> pd.DataFrame:
    """Run a method with the settings of its paper and compare with the published figures.

    The model is the estimator with its ``PAPER_PARAMS``, and the protocol is that of the paper as
    far as the data allow. With some of these settings, training takes hours.

    Parameters
    ----------
    method : str
        "MF-MoE", "SA-MoE-", "SA-MoE", "R2SL" or "TPMCF". Case, spaces and inner hyphens are
        ignored: "SAMoE" is SA-MoE.

    year : int
        Year of the paper.

    split : str
        Name of a split in `list_splits` for which the paper has figures.

    folder : str or path-like
        Folder with the data set, as in `load_split`.

    out : str or path-like
        CSV file of the results. A further call skips existing results.

    seeds : sequence of int, default=(0, 1, 2)
        Seeds of the fits.

    jobs : int, default=1
        Number of processes that run at the same time.

    Returns
    -------
    DataFrame
        One row for each published metric, with the columns ``metric``, ``ours``, ``std`` (NaN for
        one seed), ``seeds``, ``published``, ``ratio`` (our result divided by the published one),
        and the columns of `load_published_results` with its origin and whether it is comparable.
        The column ``differs`` states further differences between the protocols.

    Raises
    ------
    ValueError
        If the method or split does not exist, or the paper has no figure for the split. The message
        lists the existing ones.

    Examples
    --------
    >>> from skqos.benchmarks import reproduce
    >>> reproduce("SA-MoE", 2026, "wsdream1-rt-0.025", "wsdream1", "o.csv")  # doctest: +SKIP
    """
    paper = find_paper(method, year)
    check_known("split", split, RECIPES)
    published = find_figures(paper, split)
    if published.empty:
        known = [name for name in RECIPES if not find_figures(paper, name).empty]
        raise ValueError(
            f"{paper.method} {paper.year} has no published figure for the split {split!r}; it has "
            f"some for {', '.join(known)}."
        )
    name = f"{paper.method} {paper.year}, paper"
    rows = run(
        paper.model,
        folder,
        split,
        out,
        seeds=seeds,
        name=name,
        filtered=paper.filtered,
        jobs=jobs,
    )
    return _compare(paper, published, rows)


def find_paper(method: str, year: int) -> Paper:
    """Return the paper of a method.

    Raises
    ------
    ValueError
        If there is no such paper.
    """
    known = {f"{_normal(paper.method)} {paper.year}": paper for paper in PAPERS}
    key = f"{_normal(method)} {year}"
    if key not in known:
        check_known("paper", f"{method} {year}", [f"{p.method} {p.year}" for p in PAPERS])
    return known[key]


def find_figures(paper: Paper, split: str) -> pd.DataFrame:
    """Return the published figures of a paper for a split, possibly none."""
    recipe = RECIPES[split]
    if recipe.task != paper.task:
        return pd.DataFrame()
    wanted = {
        "method": paper.method,
        "year": paper.year,
        "data_set": recipe.data_set,
        "qos": recipe.qos,
        "density": recipe.density,
        "protocol": paper.protocol,
    }
    published = load_published_results()
    # Entries of methods in other papers have the year of the method and the table of the other
    # paper.
    rows = published[(published[list(wanted)] == pd.Series(wanted)).all(axis="columns")]
    return rows.reset_index(drop=True)


def write_comparison(table: pd.DataFrame) -> str:
    """Format a comparison for a terminal."""
    rows = []
    for row in table.itertuples():
        spread = "" if pd.isna(row.std) else f" ({row.std:.4g})"
        ours = f"{row.ours:.4g}{spread}"
        rows.append([row.metric, ours, f"{row.published:.4g}", f"{row.ratio:.3f}"])
    first = table.iloc[0]
    head = ["metric", f"ours, {first['seeds']} seeds (deviation)", "published", "ratio"]
    lines = [
        markdown(head, rows),
        f"Published: {first['source']}, {first['table']}; protocol: {first['protocol']}.",
        f"Differs: {first['differs']}.",
    ]
    if first["remark"]:
        prefix = "Remark" if first["comparable"] else "Not comparable"
        lines.append(f"{prefix}: {first['remark']}.")
    return "\n".join(lines)


def _compare(paper: Paper, published: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    suffix = "_filtered" if paper.filtered else ""
    ours = rows[[f"{metric}{suffix}" for metric in published["metric"]]]
    table = pd.DataFrame(
        {
            "metric": published["metric"],
            "ours": ours.mean().to_numpy(),
            "std": ours.agg(deviation).to_numpy(),
            "seeds": len(rows),
            "published": published["value"],
        }
    )
    table["ratio"] = table["ours"] / table["published"]
    origin = published[["source", "table", "protocol", "comparable", "remark"]]
    return table.join(origin).assign(differs=paper.differs)


def _normal(method: str) -> str:
    """Remove spaces and hyphens, except a hyphen at the end, as in SA-MoE-."""
    return re.sub(r"\s|_|-(?!$)", "", method).lower()
