"""The tables of the errors on both data sets, and our rows beside the published errors."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

from skqos.benchmarks._results import read_stored
from skqos.benchmarks.published_page import FIXED, make_page, our_entries
from skqos.benchmarks.qos_titles import TITLES
from skqos.benchmarks.tables import (
    BASELINE,
    CellSelection,
    Layout,
    make_tables,
    order_rows,
    summarise_protocols,
)

TIMEOUT = 19.9
OUTLIERS = (
    "Test cells that an isolation forest flags (contamination 0.1, all samples, seed 42, over "
    "training and test values) do not count. The forest sees the test labels."
)
# The models of the tables, in their order; others follow, in tables of their runs alone.
STATIC_MODELS = (
    "constant median",
    "service median",
    "UPCC",
    "IPCC",
    "UIPCC",
    "PMF",
    "LightGBM",
    BASELINE,
    "EmbeddingMLPRegressor, 1 member",
    "EmbeddingMLPRegressor",
    "SAMoERegressor",
    "R2SLRegressor",
    "SharpQoSRegressor",
)
TEMPORAL_MODELS = (
    "constant median",
    "service median",
    "pair median",
    "LightGBM",
    BASELINE,
    "EmbeddingMLPRegressor",
    "EmbeddingMLPRegressor, 1 member",
    "TPMCFRegressor",
)
TASK = re.compile(r"(imputation|forecast) ([\d.]+) % of slot (\d+) from (\d+)(?:, (\d+) ahead)?")
# The task of the published errors of data set 2.
IMPUTATION = r"^imputation ([\d.]+) % of slot 63 from 8$"
KEPT = "time-outs kept, slot 63"


def title_task(task: str) -> str:
    """Return the heading of a task of data set 2.

    Examples
    --------
    >>> from skqos.benchmarks.accuracy import title_task
    >>> title_task("imputation 10 % of slot 63 from 8")
    'Imputation of slot 63 from 10 % of the cells of 8 slots'
    >>> title_task("forecast_all of slot 63 from 8")
    'forecast_all of slot 63 from 8'
    """
    found = TASK.fullmatch(task)
    if found is None:
        return task
    kind, percent, slot, window, ahead = found.groups()
    distance = f", {ahead} slots ahead" if ahead else ""
    return (
        f"{kind.capitalize()} of slot {slot} from {percent} % of the cells of {window} slots"
        f"{distance}"
    )


STATIC = Layout(
    by=("qos", "density"),
    title=lambda qos, density: f"{TITLES[qos][0]}, density {density * 100:g} %",
    digits=lambda qos, _: TITLES[qos][1],
    models=STATIC_MODELS,
    protocols={
        "results": CellSelection("", "Test cells unfiltered"),
        "filtered": CellSelection("_filtered", "Test cells filtered", OUTLIERS),
    },
)
TEMPORAL = Layout(
    by=("task",),
    title=title_task,
    digits=lambda _: 3,
    models=TEMPORAL_MODELS,
    protocols={
        "temporal": CellSelection("", "All test cells, response time, s"),
        "temporal filtered": CellSelection(
            "_filtered", "Test cells filtered, response time, s", OUTLIERS
        ),
        "temporal answered": CellSelection(
            "_answered",
            "Test cells without time-outs, response time, s",
            f"Test cells of {TIMEOUT} s or more do not count.",
        ),
    },
)


def make_static_page(summaries: Mapping[str, pd.DataFrame]) -> str:
    """Put our errors on data set 1 beside the published ones."""
    return make_page("published", list_static_entries(summaries))


def list_static_entries(summaries: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Turn our errors on data set 1 into entries of the page of published errors, by section."""
    ours = {}
    for mark, protocol in (("results", FIXED), ("filtered", f"{FIXED}, filtered")):
        for qos, rows in _take(summaries[mark], STATIC_MODELS).groupby("qos"):
            name = qos if mark == "results" else f"{qos} filtered"
            ours[name] = our_entries(rows, protocol)
    return ours


def make_temporal_page(summaries: Mapping[str, pd.DataFrame]) -> str:
    """Put our errors for slot 63, imputed from eight slots, beside the published ones."""
    ours = []
    for mark, protocol in (("temporal", KEPT), ("temporal filtered", f"{KEPT}, filtered")):
        rows = _take(summaries[mark], TEMPORAL_MODELS)
        share = rows["task"].str.extract(IMPUTATION, expand=False).astype(float)
        ours.append(our_entries(rows.assign(density=share / 100)[share.notna()], protocol))
    return make_page("temporal published", {"rt": pd.concat(ours)})


def read_static() -> pd.DataFrame:
    """Read the stored results on data set 1, in the order of the tables."""
    return order_rows([read_stored("static.csv")], STATIC)


def read_temporal() -> pd.DataFrame:
    """Read the stored results on data set 2, in the order of the tables."""
    return order_rows([read_stored("temporal.csv")], TEMPORAL)


def make_stored_tables() -> dict[str, str]:
    """Write all tables of stored errors, by the names of their marks."""
    tables: dict[str, str] = {}
    for rows, layout, mark, publish in (
        (read_static(), STATIC, "published", make_static_page),
        (read_temporal(), TEMPORAL, "temporal published", make_temporal_page),
    ):
        summaries = summarise_protocols(rows, layout)
        tables |= {name: make_tables(summary, layout) for name, summary in summaries.items()}
        tables[mark] = publish(summaries)
    return tables


def _take(summary: pd.DataFrame, models: tuple[str, ...]) -> pd.DataFrame:
    rows = summary.reset_index()
    return rows[rows["model"].isin(models)]
