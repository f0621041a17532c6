"""The tables of intervals and of choices among services."""

from __future__ import annotations

import pandas as pd

from skqos.benchmarks._results import average_over_seeds, read_stored
from skqos.benchmarks.markdown import mark_best, markdown, write_best, write_numbers
from skqos.benchmarks.peers_table import PREFIX, SPLITS
from skqos.benchmarks.qos_titles import TITLES

CELLS = {"given": "given", "slot 63": "slot 63", "users": "new users", "services": "new services"}
QOS = {"rt": "response time", "tp": "throughput"}
HEAD = ["test cells", "QoS", "model", "seeds", "covered", "by tenth of the prediction"]
HEAD += ["worst users", "Winkler score", "calibration error", "fit time ratio"]
CHOICE_HEAD = ["model", "seeds", "MAE", "regret", "near the best", "covered", "Winkler score"]


def average_intervals(rows: pd.DataFrame) -> pd.DataFrame:
    """Average the rows of ``examples/benchmark_intervals.py`` over the seeds.

    Returns
    -------
    DataFrame
        Scores by ``cells``, ``model`` and ``qos``, and ``calibration``, the largest difference
        between a mean probability and the share of cells that met the limit.
    """
    means = average_over_seeds(rows, ["cells", "model", "qos"])
    return means.assign(calibration=means.filter(regex="_limit_off$").max(axis=1))


def make_interval_table(rows: pd.DataFrame) -> str:
    """Write means over the seeds as a table in Markdown; the lowest Winkler scores are bold."""
    means = average_intervals(rows)
    winkler = means["winkler"].map(_three_digits)
    for _, group in means.groupby(["cells", "qos"], sort=False):
        if len(group) > 1:
            texts = winkler[group.index].tolist()
            winkler[group.index] = mark_best(texts, group["winkler"].tolist())
    lines = [
        [
            CELLS[cells],
            QOS[qos],
            f"`{model}`" + (", joint" if model == "SharpQoSRegressor" else ""),
            f"{row.seeds:.0f}",
            f"{row.coverage:.3f}",
            f"{row.lowest_tenth:.2f} to {row.highest_tenth:.2f}",
            "" if pd.isna(row.worst_users) else f"{row.worst_users:.2f}",
            text,
            f"{row.calibration:.3f}",
            "" if pd.isna(row.times) else f"{row.times:.2f}",
        ]
        for (cells, model, qos), row, text in zip(
            means.index, means.itertuples(), winkler, strict=True
        )
    ]
    return markdown(HEAD, lines)


def make_choice_tables(rows: pd.DataFrame, peers: pd.DataFrame) -> str:
    """Write a table of choices and intervals for each QoS, the best numbers bold.

    Parameters
    ----------
    rows : DataFrame
        Rows of ``examples/benchmark_intervals.py``; those of the given cells are shown.

    peers : DataFrame
        Results of the models from other libraries on the same test cells.
    """
    given = rows[rows["cells"] == "given"]
    others = peers.assign(
        qos=peers["split"].map(SPLITS), model=peers["model"].str.removeprefix(PREFIX)
    ).dropna(subset="qos")
    means = average_over_seeds(pd.concat([given, others]), ["qos", "model"])
    parts = []
    for qos, of_qos in means.groupby(level="qos", sort=False):
        title, digits = TITLES[qos]
        table = _make_choice_table(of_qos.sort_values("mae"), digits)
        parts += [f"**{title}, density 2.5 %**", table]
    return "\n\n".join(parts)


def _make_choice_table(means: pd.DataFrame, digits: int) -> str:
    names = [f"`{name}`" for name in means.index.get_level_values("model")]
    columns = [
        write_best(means["mae"], f".{digits}f"),
        write_best(means["regret"], f".{digits}f"),
        write_best(means["near_best"], ".2f", highest=True),
        write_numbers(means["coverage"], ".3f"),
        mark_best(means["winkler"].map(_three_digits).tolist(), means["winkler"].tolist()),
    ]
    return markdown(
        CHOICE_HEAD, zip(names, write_numbers(means["seeds"], ".0f"), *columns, strict=True)
    )


def _three_digits(value: float) -> str:
    return "" if pd.isna(value) else f"{value:#.3g}".rstrip(".")


def make_stored_tables() -> dict[str, str]:
    """Write the tables of the stored intervals and choices, by the names of their marks."""
    rows = read_stored("intervals.csv")
    choices = make_choice_tables(rows, read_stored("peers.csv"))
    return {"intervals": make_interval_table(rows), "choices": choices}
