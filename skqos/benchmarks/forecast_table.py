"""The table of forecasts several slots ahead."""

from __future__ import annotations

import pandas as pd

from skqos.benchmarks._results import average_over_seeds, read_stored
from skqos.benchmarks.accuracy import TASK
from skqos.benchmarks.markdown import markdown, write_best


def read_distances(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the means over the seeds of forecasts, with their ``slot`` and ``ahead``."""
    means = average_over_seeds(rows, ["task", "model"]).reset_index()
    parts = means["task"].str.extract(TASK)
    slot = parts[2].astype(int)
    return means.assign(slot=slot, ahead=parts[4].fillna("1").astype(int))


def make_forecast_table(rows: pd.DataFrame) -> str:
    """Write MAE and RMSE of each model by slot, the lowest of a slot bold.

    Parameters
    ----------
    rows : DataFrame
        Rows of ``examples/benchmark_temporal.py`` with several distances.
    """
    means = read_distances(rows)
    models = list(dict.fromkeys(means["model"]))
    lines = []
    for (slot, ahead), of_slot in means.groupby(["slot", "ahead"]):
        errors = of_slot.set_index("model").reindex(models)
        texts = [write_best(errors[name], ".3f") for name in ("mae", "rmse")]
        cells = [f"{mae} / {rmse}" if mae else "" for mae, rmse in zip(*texts, strict=True)]
        lines.append([str(slot), str(ahead), *cells])
    return markdown(["forecast of slot", "slots ahead", *models], lines)


def make_stored_table() -> str:
    """Write the table of the stored forecasts."""
    return make_forecast_table(read_stored("forecasts.csv"))
