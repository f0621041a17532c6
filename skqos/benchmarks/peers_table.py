"""The tables of the models from other libraries."""

from __future__ import annotations

import pandas as pd

from skqos.benchmarks._results import load_results, summarize_results
from skqos.benchmarks.markdown import markdown, write_best, write_numbers
from skqos.benchmarks.qos_titles import TITLES

PREFIX = "skqos.benchmarks.peers:"
# The splits of the tables, and their QoS.
SPLITS = {"wsdream1-rt-0.025": "rt", "wsdream1-tp-0.025": "tp"}
ERRORS = {"mae": "MAE", "rmse": "RMSE", "regret": "regret"}
COSTS = {"fit_s": ("fit, CPU s", ".0f"), "predict_s": ("predict, CPU s", ".1f")}


def make_peers_table() -> str:
    """Write the stored results of the models from other libraries, a part for each QoS.

    The models are sorted by their mean absolute error. The best scores are bold.

    Examples
    --------
    >>> from skqos.benchmarks.peers_table import make_peers_table
    >>> make_peers_table().splitlines()[2]
    '| model | seeds | MAE | RMSE | regret | near the best | fit, CPU s | predict, CPU s |'
    """
    results = load_results()
    of_peers = results[results["model"].str.startswith(PREFIX)]
    parts = []
    for split, qos in SPLITS.items():
        title, digits = TITLES[qos]
        part = _make_part(of_peers[of_peers["split"] == split], digits)
        parts += [f"**{title}, density 2.5 %**", part]
    return "\n\n".join(parts)


def _make_part(results: pd.DataFrame, digits: int) -> str:
    summary = summarize_results(results)
    means = summary.pivot_table("mean", "model", "metric", aggfunc="last").sort_values("mae")
    seeds = summary.groupby("model")["seeds"].min()
    columns = [
        [f"`{model.removeprefix(PREFIX)}`" for model in means.index],
        seeds[means.index].map(str),
        *(write_best(means[name], f".{digits}f") for name in ERRORS),
        write_best(means["near_best"], ".2f", highest=True),
        *(write_numbers(means[name], spec) for name, (_, spec) in COSTS.items()),
    ]
    head = ["model", "seeds", *ERRORS.values(), "near the best"]
    return markdown([*head, *(title for title, _ in COSTS.values())], zip(*columns, strict=True))
