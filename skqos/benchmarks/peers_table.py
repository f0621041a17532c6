"""The tables of the models from other libraries."""

from __future__ import annotations

import pandas as pd

from skqos.benchmarks._results import load_results, summarize_results
from skqos.benchmarks.markdown import mark_best, markdown

PREFIX = "skqos.benchmarks.peers:"
# Titles of the splits, and digits of the errors.
SPLITS = {
    "wsdream1-rt-0.025": ("Response time in s, density 2.5 %", 3),
    "wsdream1-tp-0.025": ("Throughput in kbps, density 2.5 %", 2),
}
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
    parts = [
        f"**{title}**\n\n{_make_part(of_peers[of_peers['split'] == split], digits)}"
        for split, (title, digits) in SPLITS.items()
    ]
    return "\n\n".join(parts)


def _make_part(results: pd.DataFrame, digits: int) -> str:
    summary = summarize_results(results)
    means = summary.pivot_table("mean", "model", "metric", aggfunc="last").sort_values("mae")
    seeds = summary.groupby("model")["seeds"].min()
    near = means["near_best"]
    columns = [
        [f"`{model.removeprefix(PREFIX)}`" for model in means.index],
        seeds[means.index].map(str),
        *(
            mark_best(means[name].map(f"{{:.{digits}f}}".format).tolist(), means[name].tolist())
            for name in ERRORS
        ),
        mark_best(near.map("{:.2f}".format).tolist(), near.tolist(), highest=True),
        *(means[name].map(f"{{:{spec}}}".format) for name, (_, spec) in COSTS.items()),
    ]
    head = ["model", "seeds", *ERRORS.values(), "near the best"]
    return markdown([*head, *(title for title, _ in COSTS.values())], zip(*columns, strict=True))
