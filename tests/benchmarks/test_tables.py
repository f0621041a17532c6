"""Tables of results, and the marks that they stand between."""

import numpy as np
import pandas as pd
import pytest

from skqos.benchmarks.markdown import write_between_marks
from skqos.benchmarks.tables import Layout, add_ratios, make_tables, order_rows, summarise

LAYOUT = Layout(("qos",), lambda qos: f"QoS {qos}", lambda _: 3, ("b", "a"), {})


def _rows(model, run, mae, seed=0):
    costs = {"rmse": 1.0, "fit_s": 1.0, "pairs_per_s": 1.0, "peak_mb": 1.0}
    return {"qos": "rt", "model": model, "run": run, "seed": seed, "mae": mae, **costs}


def test_a_run_without_the_baseline_is_compared_with_that_of_all():
    rows = [
        _rows("embedding MLP", "a", 1.0),
        _rows("embedding MLP", "b", 3.0),
        _rows("ours", "a", 2.0),
        _rows("ours", "c", 2.0),
    ]
    ratios = add_ratios(pd.DataFrame(rows), ["qos"])["mae / MLP"]
    np.testing.assert_allclose(ratios, [1, 1, 2, 1])


def test_only_several_seeds_have_a_deviation_and_the_best_is_bold():
    rows = [_rows("one", "a", 2.0), _rows("two", "a", 1.0), _rows("two", "a", 3.0, seed=1)]
    rows += [_rows("worse", "a", 4.0)]
    table = make_tables(summarise(pd.DataFrame(rows), ["qos"]), LAYOUT).splitlines()
    assert table[0] == "**QoS rt**"
    assert "| one | 1 | **2.000** | **1.000** |" in table[4]
    assert "| two | 2 | **2.000** (1.000) | **1.000** (0.000) |" in table[5]
    assert "| worse | 1 | 4.000 | **1.000** |" in table[6]


def test_each_problem_has_a_table_with_its_own_best():
    rows = [_rows("a", "", 2.0), _rows("b", "", 3.0)]
    rows += [{**row, "qos": "tp", "mae": 5 - row["mae"]} for row in rows]
    table = make_tables(summarise(order_rows([pd.DataFrame(rows)], LAYOUT), ["qos"]), LAYOUT)
    lines = [line[: line.index("** |") + 2] for line in table.splitlines() if "** |" in line]
    of_rt = ["| b | 1 | 3.000 | **1.000**", "| a | 1 | **2.000**"]
    of_tp = ["| b | 1 | **2.000**", "| a | 1 | 3.000 | **1.000**"]
    assert lines == [*of_rt, *of_tp]


def test_choices_are_shown_where_they_were_measured():
    rows = [_rows("one", "a", 2.0) | {"regret": 0.5, "near_best": 0.8}]
    rows += [_rows("two", "a", 1.0) | {"regret": 0.7, "near_best": 0.9}, _rows("three", "a", 1.0)]
    table = make_tables(summarise(pd.DataFrame(rows), ["qos"]), LAYOUT)
    assert "| RMSE / MLP | regret | near the best |" in table
    one, two, three = (line.split(" | ")[6:8] for line in table.splitlines()[4:])
    assert [one, two, three] == [["**0.500**", "0.80"], ["0.700", "**0.90**"], ["", ""]]


def test_text_is_put_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- t: begin -->\nold\n<!-- t: end -->\nb\n")
    write_between_marks(page, {"t": "new", "other": "-"})
    assert page.read_text() == "a\n<!-- t: begin -->\nnew\n<!-- t: end -->\nb\n"
    quoted = 'start-after: "<!-- t: begin -->"\n'
    page.write_text(f"{quoted}<!-- t: begin -->\n<!-- t: end -->\n")
    write_between_marks(page, {"t": "new"})
    assert page.read_text() == f"{quoted}<!-- t: begin -->\nnew\n<!-- t: end -->\n"
    page.write_text(quoted)
    with pytest.raises(ValueError, match="has none of the marks"):
        write_between_marks(page, {"other": "-"})


@pytest.mark.parametrize("marks", [["begin"], ["end", "begin"], ["begin", "end", "begin", "end"]])
def test_marks_that_are_no_pair_are_named(tmp_path, marks):
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- t: {mark} -->\n" for mark in marks))
    with pytest.raises(ValueError, match=r"page.md must have '<!-- t: begin -->' once, and"):
        write_between_marks(page, {"t": "new"})
