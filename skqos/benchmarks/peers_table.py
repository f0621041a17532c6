"""The table of the models from other libraries."""

from __future__ import annotations

from skqos.benchmarks._results import load_results, summarize_results
from skqos.benchmarks.markdown import mark_best, markdown

PREFIX = "skqos.benchmarks.peers:"
COLUMNS = {
    "mae": ("MAE", ".3f"),
    "rmse": ("RMSE", ".3f"),
    "regret": ("regret", ".3f"),
    "near_best": ("near the best", ".2f"),
    "fit_s": ("fit, CPU s", ".0f"),
    "predict_s": ("predict, CPU s", ".1f"),
}
SCORES = ("mae", "rmse", "regret", "near_best")


def make_peers_table(split: str = "wsdream1-rt-0.025") -> str:
    """Write the stored results of the models from other libraries on a split, best first.

    The best scores are bold.

    Examples
    --------
    >>> from skqos.benchmarks.peers_table import make_peers_table
    >>> make_peers_table().splitlines()[0]
    '| model | seeds | MAE | RMSE | regret | near the best | fit, CPU s | predict, CPU s |'
    """
    results = load_results()
    of_peers = (results["split"] == split) & results["model"].str.startswith(PREFIX)
    summary = summarize_results(results[of_peers])
    means = summary.pivot_table("mean", "model", "metric", aggfunc="last").sort_values("mae")
    seeds = summary.groupby("model")["seeds"].min()
    columns = {
        name: [format(value, spec) for value in means[name]] for name, (_, spec) in COLUMNS.items()
    }
    for name in SCORES:
        highest = name == "near_best"
        columns[name] = mark_best(columns[name], means[name].tolist(), highest=highest)
    names = [f"`{model.removeprefix(PREFIX)}`" for model in means.index]
    head = ["model", "seeds", *(title for title, _ in COLUMNS.values())]
    return markdown(head, zip(names, seeds[means.index].map(str), *columns.values(), strict=True))
