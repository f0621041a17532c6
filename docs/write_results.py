"""Write all tables and figures of results: ``python docs/write_results.py``.

The tables are those between the marks of the README and of the pages, the figures go to
``_static``. Both are made from the stored results in ``skqos/benchmarks/results``, in a few
seconds. Needs matplotlib.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from figure_style import GREY, save_figure
from matplotlib.axes import Axes

from skqos.benchmarks._results import read_stored
from skqos.benchmarks.ablation_report import label_split, load_ablations
from skqos.benchmarks.ablations import DEFAULT
from skqos.benchmarks.accuracy import STATIC, list_static_entries, read_static, read_temporal
from skqos.benchmarks.figures import draw_time
from skqos.benchmarks.forecast_table import read_distances
from skqos.benchmarks.interval_tables import CELLS, QOS, average_intervals
from skqos.benchmarks.pages import find_pages, write_pages
from skqos.benchmarks.published_page import OURS, gather_entries
from skqos.benchmarks.published_page import STATIC as SECTIONS
from skqos.benchmarks.qos_titles import LABELS
from skqos.benchmarks.tables import summarise_protocols

ROOT = Path(__file__).resolve().parents[1]
NOMINAL = 0.9
# Larger ones would leave no room for the others.
LARGEST_DIFFERENCE = 20.0
UNITS = {qos: label for qos, (label, _) in LABELS.items()}
BESIDE_PUBLISHED = ("service median", "EmbeddingMLPRegressor", "SAMoERegressor")


def main() -> None:
    """Write all tables, and draw all figures."""
    write_pages(find_pages(ROOT))
    draw_static(read_static())
    save_figure(
        "error_by_task",
        (8.6, 3.2),
        partial(draw_tasks, rows=read_temporal()),
        partial(draw_distances, means=read_distances(read_stored("forecasts.csv"))),
    )
    intervals = average_intervals(read_stored("intervals.csv")).reset_index()
    save_figure("intervals", (4.8, 5.6), partial(draw_intervals, means=intervals))
    for defaults in ("former", "present"):
        for name, summary in load_ablations(defaults).groupby("method", sort=False):
            size = 6.0, 1.2 + 0.55 * (summary["part"].nunique() - 1)
            draw = partial(draw_ablation, summary=summary)
            save_figure(f"ablations_{name}_{defaults}", size, draw)


def draw_static(rows: pd.DataFrame) -> None:
    """Draw the errors on data set 1 against the time of a fit, and beside the published ones."""
    panels = [
        partial(draw_costs, rows=rows[rows["qos"] == qos], qos=qos, has_legend=qos == "tp")
        for qos in UNITS
    ]
    save_figure("error_against_time", (9.6, 3.6), *panels)
    ours = list_static_entries(summarise_protocols(rows, STATIC))
    entries = gather_entries("published", ours)
    for qos, unit in UNITS.items():
        densities = SECTIONS[qos].densities
        draw = partial(draw_densities, entries=entries[qos], densities=densities, unit=unit)
        save_figure(f"error_by_density_{qos}", (4.6, 4.4), draw)


def draw_costs(axes: Axes, rows: pd.DataFrame, qos: str, *, has_legend: bool) -> None:
    """Error of each model against the CPU seconds of a fit."""
    draw_time(axes, rows)
    axes.set(ylabel=f"MAE of {UNITS[qos]}")
    if not has_legend:
        axes.get_legend().remove()


def draw_tasks(axes: Axes, rows: pd.DataFrame) -> None:
    """Error of each model of data set 2, one colour per task."""
    names = list(dict.fromkeys(rows["model"]))
    for task, part in rows.groupby("task"):
        means = part.groupby("model")["mae"].mean().reindex(names)
        axes.plot(means, range(len(names)), "o", label=task.split(" ")[0])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="MAE of slot 63, s", xlim=(0, None))
    axes.legend(frameon=False)


def draw_distances(axes: Axes, means: pd.DataFrame) -> None:
    """Error of forecasts by their distance."""
    for name, part in means.groupby("model", sort=False):
        axes.plot(part["ahead"], part["mae"], marker="o", label=name)
    ticks = sorted(means["ahead"].unique())
    axes.set(xlabel="slots ahead", ylabel="MAE of a forecast, s", xticks=ticks, ylim=(0, None))
    axes.legend(frameon=False)


def draw_intervals(axes: Axes, means: pd.DataFrame) -> None:
    """Coverage of each row: overall, the range over tenths of the prediction, the worst users."""
    rows = means["cells"].map(CELLS).replace("given", "") + " " + means["qos"].map(QOS)
    place = np.arange(len(means))
    axes.axvline(NOMINAL, color=GREY, linestyle="--", linewidth=1)
    ends = means["lowest_tenth"], means["highest_tenth"]
    axes.hlines(place, *ends, linewidth=5, alpha=0.4, label="tenths of the prediction")
    axes.plot(means["coverage"], place, "o", color="C0", label="all cells")
    axes.plot(means["worst_users"], place, "x", color="C1", label="5 % of the users are below")
    axes.set_yticks(place, means["model"] + "\n" + rows.str.strip(), fontsize=8.5)
    axes.invert_yaxis()
    axes.set(xlabel="measurements within their 90 % interval", xlim=(0.68, 1))
    axes.legend(loc="upper right", bbox_to_anchor=(1, -0.11), frameon=False)


def draw_densities(
    axes: Axes, entries: pd.DataFrame, densities: tuple[float, ...], unit: str
) -> None:
    """Error of each method by density: of papers in grey, ours in colours."""
    x = 100 * np.array(densities)
    errors = entries[[f"mae {density:g}" for density in densities]].to_numpy(dtype=float)
    names = entries["method"].str.strip("*").str.split(",").str[0]
    ours = entries["source"] == OURS
    published = np.isfinite(errors).sum(1) >= 3
    # Of a method with several runs or variants, the first.
    published &= ~names.where(published).duplicated()
    shown = (ours & entries["method"].str.strip("*").isin(BESIDE_PUBLISHED)) | published
    ends = {}
    for row in np.flatnonzero(shown):
        given = np.isfinite(errors[row])
        name = names.iloc[row]
        if ours.iloc[row]:
            axes.plot(x[given], errors[row, given], marker="D", zorder=3, label=name)
            continue
        style = "-" if entries["comparable"].iloc[row] else ":"
        axes.plot(x[given], errors[row, given], style, color=GREY, marker=".", linewidth=1)
        ends[name] = errors[row, given][-1]
    places = spread(ends, 0.033 * (np.nanmax(errors[shown]) - np.nanmin(errors[shown])))
    for name, y in places.items():
        axes.annotate(name, (x[-1], y), (4, -3), textcoords="offset points", fontsize=7.5)
    axes.set(xlabel="density, %", ylabel=f"MAE of {unit}", xticks=x)
    axes.legend(frameon=False, fontsize=8)


def spread(ends: dict[str, float], gap: float) -> dict[str, float]:
    """Move labels up where they would overlap."""
    places, lowest = {}, -np.inf
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        places[name] = lowest = max(end, lowest + gap)
    return places


def draw_ablation(axes: Axes, summary: pd.DataFrame) -> None:
    """Difference of the MAE of each variant of a method, one colour per split."""
    shown = summary[summary["part"] != summary["reference"]].dropna(subset="difference")
    shown = shown[shown["difference"].abs() <= LARGEST_DIFFERENCE]
    names = list(dict.fromkeys(shown["part"]))
    of_splits = list(shown.groupby("split", sort=False))
    shifts = 0.14 * (np.arange(len(of_splits)) - (len(of_splits) - 1) / 2)
    for shift, (split, part) in zip(shifts, of_splits, strict=True):
        place = part["part"].map(names.index) + shift
        width = part["half_width"]
        axes.errorbar(part["difference"], place, xerr=width, fmt=".", label=label_split(split))
    axes.axvline(0, color=GREY, linestyle="--", linewidth=1)
    references = shown.drop_duplicates("part").set_index("part")["reference"]
    labels = [
        name if references[name] == DEFAULT else f"{name}\n(against {references[name]})"
        for name in names
    ]
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(xlabel="difference of the MAE, %")
    columns = min(3, len(of_splits))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False)


if __name__ == "__main__":
    main()
