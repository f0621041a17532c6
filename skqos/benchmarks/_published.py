"""Errors that papers and public repositories report for WS-DREAM."""

from __future__ import annotations

from importlib.resources import as_file, files

import pandas as pd


def read_entries() -> pd.DataFrame:
    """Return the published errors, with one row for each method of a source.

    Returns
    -------
    DataFrame
        Columns as in ``published.csv``: those that identify the entry, then "mae 0.025", "rmse
        0.025" and so on, with NaN for values that were not published.
    """
    with as_file(files("skqos.benchmarks") / "published.csv") as path:
        entries = pd.read_csv(path, dtype={"year": "Int64", "runs": "Int64", "remark": str})
    comparable = entries["comparable"] == "yes"
    return entries.assign(comparable=comparable, remark=entries["remark"].fillna(""))


def load_published_results() -> pd.DataFrame:
    """Load the errors that papers and public repositories report for WS-DREAM.

    Most of them were measured with a different protocol, and all of them on different random draws
    of the cells.

    Returns
    -------
    DataFrame
        One row for each published number, with the columns

        - ``data_set``: "wsdream1" or "wsdream2";
        - ``qos``: "rt" (response time, in seconds) or "tp" (throughput, in kbps);
        - ``protocol``: selection of the training and test cells. "all cells" trains on a fraction
          of all user-service cells and tests on all other measured cells. "full context" is the
          same for the 4,612 services with complete context. "filtered" trains on a fraction of the
          measured cells, and excludes test cells that an isolation forest flags;
        - ``method`` and ``year``: name and year of the method; the year is missing if the source
          does not state it;
        - ``source``, ``table`` and ``runs``: origin of the number, and number of runs of which it
          is the mean, missing if the source does not state it;
        - ``comparable``: whether the number can be compared with errors on unfiltered test cells;
        - ``remark``: reason why it is not comparable, or other differences; may be empty;
        - ``density``: fraction of training cells, in (0, 1), counted according to `protocol`;
        - ``metric`` and ``value``: "mae" or "rmse", in the unit of the QoS.

    See Also
    --------
    load_results : Our results.

    Examples
    --------
    >>> from skqos.benchmarks import load_published_results
    >>> published = load_published_results()
    >>> rows = published.query("method == 'MF-MoE' and qos == 'rt' and metric == 'mae'")
    >>> rows[["density", "value"]].round(3).to_numpy().tolist()
    [[0.025, 0.45], [0.05, 0.39], [0.075, 0.358], [0.1, 0.347]]
    """
    entries = read_entries()
    names = [column for column in entries if " " not in column]
    figures = entries.melt(names, var_name="figure", ignore_index=False).dropna(subset="value")
    # Sorted by method, as in the file.
    figures = figures.sort_index(kind="stable").reset_index(drop=True)
    figures[["metric", "density"]] = figures.pop("figure").str.split(" ", expand=True)
    figures["density"] = figures["density"].astype(float)
    return figures[[*names, "density", "metric", "value"]]
