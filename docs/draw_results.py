"""Draw the tables of the pages: ``python docs/draw_results.py`` writes ``_static``.

The figures show what stands in the tables of the Markdown files, so that they follow when a
benchmark writes new ones. Needs matplotlib.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from figure_style import GREY, save_figure
from matplotlib.axes import Axes

from skqos.benchmarks.ablation_report import label_split, load_ablations
from skqos.benchmarks.ablations import DEFAULT

DOCS = Path(__file__).parent
NOMINAL = 0.9
# Larger ones would leave no room for the others.
LARGEST_DIFFERENCE = 20.0


def read_tables(page: str) -> list[pd.DataFrame]:
    """Read the tables of a page; cells are strings without markup."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    return [_read_table(block.splitlines()) for block in blocks]


def _read_table(lines: list[str]) -> pd.DataFrame:
    head, _, *rows = (
        [cell.replace("*", "").replace("`", "").strip() for cell in line[1:-1].split("|")]
        for line in lines
    )
    return pd.DataFrame(rows, columns=head)


def find_tables(page: str, *columns: str) -> list[pd.DataFrame]:
    """Read those tables of a page that have the given columns."""
    return [table for table in read_tables(page) if {*columns} <= {*table.columns}]


def draw_intervals(axes: Axes, table: pd.DataFrame) -> None:
    """Coverage of each row: overall, the range over tenths of the prediction, the worst users."""
    rows = table["test cells"].replace("given", "") + " " + table["QoS"]
    names = table["model"].str.removesuffix(", joint") + "\n" + rows.str.strip()
    place = np.arange(len(table))
    tenths = table["by tenth of the prediction"].str.split(" to ", expand=True).astype(float)
    axes.axvline(NOMINAL, color=GREY, linestyle="--", linewidth=1)
    axes.hlines(
        place, tenths[0], tenths[1], linewidth=5, alpha=0.4, label="tenths of the prediction"
    )
    axes.plot(table["covered"].astype(float), place, "o", color="C0", label="all cells")
    worst = table["worst users"].astype(float)
    axes.plot(worst, place, "x", color="C1", label="5 % of the users are below")
    axes.set_yticks(place, names, fontsize=8.5)
    axes.invert_yaxis()
    axes.set(xlabel="measurements within their 90 % interval", xlim=(0.68, 1))
    axes.legend(loc="upper right", bbox_to_anchor=(1, -0.11), frameon=False)


def draw_densities(axes: Axes, table: pd.DataFrame, unit: str) -> None:
    """Error of each method by density: of papers in grey, ours in colours."""
    densities = [column for column in table if re.fullmatch(r"[\d.]+ %", column)]
    x = np.array([float(column.removesuffix(" %")) for column in densities])
    errors = table[densities].apply(lambda column: column.str.extract(r"^([\d.]+)")[0])
    errors = errors.astype(float).to_numpy()
    ours = table["source"] == "this benchmark"
    comparable = ~table["remark"].str.startswith("not comparable")
    names = table["method"].str.split(",").str[0]
    published = np.isfinite(errors).sum(1) >= 3
    # Of a method with several runs or variants, the first.
    published &= ~names.where(published).duplicated()
    shown = (ours & table["method"].isin(OURS)) | published
    ends = {}
    for row in np.flatnonzero(shown):
        given = np.isfinite(errors[row])
        name = names.iloc[row]
        if ours.iloc[row]:
            axes.plot(x[given], errors[row, given], marker="D", zorder=3, label=name)
            continue
        style = "-" if comparable.iloc[row] else ":"
        axes.plot(x[given], errors[row, given], style, color=GREY, marker=".", linewidth=1)
        ends[name] = errors[row, given][-1]
    places = spread(ends, 0.033 * (np.nanmax(errors[shown]) - np.nanmin(errors[shown])))
    for name, y in places.items():
        axes.annotate(name, (x[-1], y), (4, -3), textcoords="offset points", fontsize=7.5)
    axes.set(xlabel="density, %", ylabel=f"MAE, {unit}", xticks=x)
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


OURS = ("service median", "EmbeddingMLPRegressor", "SAMoERegressor")


def main() -> None:
    """Draw all figures."""
    intervals = find_tables("intervals.md", "covered", "worst users")[0]
    save_figure("intervals", (4.8, 5.6), partial(draw_intervals, table=intervals))
    by_density = find_tables("protocol.md", "2.5 %", "10 %", "source")
    for name, unit, table in zip(("rt", "tp"), ("s", "kbps"), by_density, strict=False):
        draw = partial(draw_densities, table=table, unit=unit)
        save_figure(f"error_by_density_{name}", (4.6, 4.4), draw)
    for defaults in ("former", "present"):
        for name, summary in load_ablations(defaults).groupby("method", sort=False):
            size = 6.0, 1.2 + 0.55 * (summary["part"].nunique() - 1)
            draw = partial(draw_ablation, summary=summary)
            save_figure(f"ablations_{name}_{defaults}", size, draw)


if __name__ == "__main__":
    main()
