"""The page of published errors: tables in Markdown, with our results at the end of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd

from skqos.benchmarks._published import read_entries
from skqos.benchmarks.markdown import markdown

OURS = "this benchmark"
FIXED = "fixed test cells"
STATIC_LEGEND = """\
Protocols: "all cells" trains on a share of all user-service cells and tests on every other measured
cell (WSRec, WS-DREAM and AFIL leave out users and services without a training row); "full
context" does so on the 4,612 services of which all context is known; "filtered" trains on a share
of the *measured* cells and leaves out the test cells that an isolation forest flags, which is
fitted to all values, test values included; "fixed test cells", of our rows, trains on a share of
all cells and tests on the cells of the test file. All others were measured on other draws of the
cells than ours. "?" was not published."""
TEMPORAL_LEGEND = """\
Densities are shares of all cells of the training slots, unless the remark says otherwise; those of
our rows are shares of the measured cells. "Filtered" leaves out the test cells that an isolation
forest flags, which is fitted to all values, test values included. All others were measured on other
draws of the cells than ours. "?" was not published."""
UNAVAILABLE = """\
Unavailable, because their tables could not be read: SHARP-QoS, QoSGNN, FRLN, llmQoS, QoSBERT,
QoSDiff, QoSGMAA, TOAST, PLRes, ARRQP, TRQP, PDS-Net, and NCRL and D2E-LF in papers of their own."""
DIGITS = {"wsdream1": {"rt": 3, "tp": 2}, "wsdream2": {"rt": 3, "tp": 3}}


@dataclass(frozen=True)
class Section:
    """Entries of one QoS and one protocol, in a table and a second table for other densities.

    Parameters
    ----------
    title : str
        Heading.

    data_set, qos : str
        As in `load_published_results`.

    filtered : bool
        Whether the test cells are filtered, for data set 1.

    densities : tuple of float or None
        Densities of the first table. If None, it contains all densities.
    """

    title: str
    data_set: str
    qos: str
    filtered: bool = False
    densities: tuple[float, ...] | None = None


STATIC = {
    "rt": Section(
        "Response time, s, test cells unfiltered",
        "wsdream1",
        "rt",
        densities=(0.025, 0.05, 0.075, 0.1),
    ),
    "tp": Section(
        "Throughput, kbps, test cells unfiltered",
        "wsdream1",
        "tp",
        densities=(0.025, 0.05, 0.075, 0.1),
    ),
    "rt filtered": Section(
        "Response time, s, test cells filtered", "wsdream1", "rt", filtered=True
    ),
}
TEMPORAL = {
    "rt": Section("Response time at a time slot, s", "wsdream2", "rt", densities=(0.05, 0.1, 0.2)),
    "tp": Section("Throughput at a time slot, kbps", "wsdream2", "tp", densities=(0.1, 0.2)),
}
PAGES = {"published": (STATIC, STATIC_LEGEND), "temporal published": (TEMPORAL, TEMPORAL_LEGEND)}


def make_page(name: str, ours: Mapping[str, pd.DataFrame] = MappingProxyType({})) -> str:
    """Return all sections of a page as text, with our entries at the end of each.

    Parameters
    ----------
    name : {"published", "temporal published"}
        Data set 1, or data set 2.

    ours : mapping of str to DataFrame
        Our entries by section, as returned by `our_entries`.
    """
    sections, legend = PAGES[name]
    parts = [legend]
    for key, entries in gather_entries(name, ours).items():
        parts += _make_tables(entries, sections[key])
    return "\n\n".join([*parts, UNAVAILABLE])


def gather_entries(name: str, ours: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the entries of each section of a page, the published ones first."""
    published = read_entries()
    return {
        key: pd.concat([_choose(published, section), ours.get(key)], ignore_index=True)
        for key, section in PAGES[name][0].items()
    }


def our_entries(summary: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Turn rows with density, model, mae, rmse and seeds into entries, one for each model."""
    entries = []
    for model, rows in summary.groupby("model", sort=False):
        entry = {
            "protocol": protocol,
            "method": f"**{model}**",
            "source": OURS,
            "comparable": True,
            "remark": f"seeds: {rows['seeds'].min():.0f}",
        }
        for row in rows.itertuples(index=False):
            entry |= {f"mae {row.density:g}": row.mae, f"rmse {row.density:g}": row.rmse}
        entries.append(entry)
    return pd.DataFrame(entries).astype({"comparable": bool}) if entries else pd.DataFrame()


def _choose(published: pd.DataFrame, section: Section) -> pd.DataFrame:
    is_filtered = published["protocol"] == "filtered"
    rows = (published["data_set"] == section.data_set) & (published["qos"] == section.qos)
    return published[rows & (is_filtered == section.filtered)]


def _make_tables(entries: pd.DataFrame, section: Section) -> list[str]:
    """Write the table of the section's densities, and one of the others if there are any."""
    measured = entries.filter(like="mae ").dropna(axis="columns", how="all")
    there = sorted(float(column.split(" ")[1]) for column in measured)
    first = section.densities or there
    digits = DIGITS[section.data_set][section.qos]
    parts = []
    for title, densities in (
        (section.title, first),
        (f"{section.title}, other densities", [d for d in there if d not in first]),
    ):
        if densities:
            table = _make_table(entries, densities, digits)
            parts += [f"**{title}, MAE / RMSE by density**", table]
    return parts


def _make_table(entries: pd.DataFrame, densities: list[float], digits: int) -> str:
    """Write the entries that have one of the densities, one column for each."""
    columns = [f"mae {density:g}" for density in densities]
    there = entries[entries.reindex(columns=columns).notna().any(axis="columns")]
    rows = [
        [
            entry["method"],
            "" if pd.isna(entry["year"]) else str(entry["year"]),
            *(_write_errors(entry, density, digits) for density in densities),
            _write_source(entry),
            entry["protocol"],
            entry["remark"] if entry["comparable"] else f"**not comparable**: {entry['remark']}",
        ]
        for _, entry in there.iterrows()
    ]
    shares = [f"{100 * density:g} %" for density in densities]
    return markdown(["method", "year", *shares, "source", "protocol", "remark"], rows)


def _write_errors(entry: pd.Series, density: float, digits: int) -> str:
    errors = [entry.get(f"{metric} {density:g}") for metric in ("mae", "rmse")]
    if pd.isna(errors).all():
        return ""
    return " / ".join("?" if pd.isna(error) else f"{error:.{digits}f}" for error in errors)


def _write_source(entry: pd.Series) -> str:
    parts = [entry["source"]]
    if not pd.isna(entry["table"]):
        parts.append(entry["table"])
    if not pd.isna(entry["runs"]):
        parts.append("1 run" if entry["runs"] == 1 else f"{entry['runs']} runs")
    return ", ".join(parts)
