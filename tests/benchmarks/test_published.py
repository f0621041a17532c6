"""Published figures: the frame, and the page that is made of it."""

import re
from pathlib import Path

import pandas as pd
import pytest

from skqos.benchmarks import load_published_results
from skqos.benchmarks.published_page import PAGES, make_page, our_entries

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "protocol.md"


def _tables(text):
    """Return head and rows of each table."""
    for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        head, _, *rows = [line.strip("| \n").split(" | ") for line in block.splitlines()]
        yield head, rows


def _between_marks(name):
    text = PAGE.read_text()
    return text[text.index(f"<!-- {name}: begin -->") : text.index(f"<!-- {name}: end -->")]


@pytest.mark.parametrize("name", PAGES)
def test_the_frame_makes_every_published_row_of_the_page(name):
    # Heads differ by the densities of ours.
    expected, found = (
        [_cells(line) for line in text.splitlines() if line.startswith("| ")]
        for text in (make_page(name), _between_marks(name))
    )
    heads = sum(cells[0] == "method" for cells in expected)
    assert heads == sum(cells[0] == "method" for cells in found)
    rows = [cells for cells in found if cells[0] != "method" and "this benchmark" not in cells]
    assert rows == [cells for cells in expected if cells[0] != "method"]


def _cells(line):
    return [cell.strip() for cell in line.strip("|").split("|") if cell.strip()]


def test_each_number_is_on_a_page():
    published = load_published_results()
    text = "".join(map(make_page, PAGES))
    for row in published.itertuples():
        digits = 2 if (row.data_set, row.qos) == ("wsdream1", "tp") else 3
        assert f"{row.value:.{digits}f}" in text, row


def test_each_number_says_where_it_is_from():
    published = load_published_results()
    assert published[["source", "table", "protocol", "method"]].notna().all(axis=None)
    assert (published["source"].str.len() > 0).all()
    assert set(published["metric"]) == {"mae", "rmse"}
    assert published["density"].between(0, 1, inclusive="neither").all()
    refused = published[~published["comparable"]]
    assert (refused["remark"].str.len() > 0).all()
    # Those whose test is not the unfiltered cells are not comparable.
    assert not published.loc[published["protocol"].str.contains("filtered"), "comparable"].any()


def test_no_number_is_there_twice():
    published = load_published_results()
    names = [name for name in published if name != "value"]
    assert not published.duplicated(names).any()


def test_mae_is_below_rmse():
    published = load_published_results()
    names = [name for name in published if name not in ("metric", "value")]
    # Missing years and runs are no keys of their own.
    keys = [repr(row) for row in published[names].itertuples(index=False)]
    errors = published.assign(key=keys).pivot(index="key", columns="metric", values="value")
    errors = errors.dropna()
    assert len(errors) > 200
    assert (errors["mae"] < errors["rmse"]).all()


def test_ours_stand_at_the_end_of_a_table():
    summary = [
        {"model": "A", "density": d, "mae": d, "rmse": 1.0, "seeds": 3} for d in (0.025, 0.07)
    ]
    page = make_page("published", {"rt": our_entries(pd.DataFrame(summary), "all cells")})
    tables = list(_tables(page))
    first, others = tables[0], tables[1]
    assert first[1][-1][:3] == ["**A**", "", "0.025 / 1.000"]
    assert first[1][-1][-1] == "seeds: 3"
    assert "7 %" in others[0]
    assert others[1][-1][others[0].index("7 %")] == "0.070 / 1.000"
    assert sum("**A**" in line for line in page.splitlines()) == 2
