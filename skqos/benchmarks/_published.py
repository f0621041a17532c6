"""Errors that papers and public repositories report for WS-DREAM."""

from __future__ import annotations

from importlib.resources import as_file, files

import pandas as pd


def read_entries() -> pd.DataFrame:
    """Return the published errors, a row for each method of a source.

    Returns
    -------
    DataFrame
        Columns as in ``published.csv``: what tells the entries apart, then "mae 0.025",
        "rmse 0.025" and so on, NaN where nothing was published.
    """
    with as_file(files("skqos.benchmarks") / "published.csv") as path:
        entries = pd.read_csv(path, dtype={"year": "Int64", "runs": "Int64", "remark": str})
    comparable = entries["comparable"] == "yes"
    return entries.assign(comparable=comparable, remark=entries["remark"].fillna(""))


def load_published_results() -> pd.DataFrame:
    """Load the errors that papers and public repositories report for WS-DREAM.

    Most of them were measured by another protocol than ours, and all of them on other draws of the
    cells.

    Returns
    -------
    DataFrame
        A row for each published number, with the columns

        - ``data_set``: "wsdream1" or "wsdream2";
        - ``qos``: "rt" (response time, in seconds) or "tp" (throughput, in kbps);
        - ``protocol``: which cells train and which are tested. "all cells" trains on a share of
          all user-service cells and tests on every other measured cell. "full context" does so on
          the 4,612 services of which all context is known. "filtered" trains on a share of the
          measured cells, and leaves out the test cells that an isolation forest flags;
        - ``method`` and ``year``: of the method, missing where the source does not tell;
        - ``source``, ``table`` and ``runs``: where the number is from, and how many runs it is the
          mean of, missing where the source does not tell;
        - ``comparable``: whether it can be compared with errors on unfiltered test cells;
        - ``remark``: why it cannot, or what else differs; may be empty;
        - ``density``: share of the cells that train, in (0, 1); counted as `protocol` says;
        - ``metric`` and ``value``: "mae" or "rmse", in the unit of the QoS.

    See Also
    --------
    load_results : Our own results.

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
    # A method after the other, as in the file.
    figures = figures.sort_index(kind="stable").reset_index(drop=True)
    figures[["metric", "density"]] = figures.pop("figure").str.split(" ", expand=True)
    figures["density"] = figures["density"].astype(float)
    return figures[[*names, "density", "metric", "value"]]
