"""Tables of single pages: what they do with rows that the stored results do not have."""

import pandas as pd

from skqos.benchmarks.baseline_table import add_ratios, make_baseline_table
from skqos.benchmarks.export_tables import make_export_tables
from skqos.benchmarks.forecast_table import make_forecast_table
from skqos.benchmarks.stream_tables import make_table, summarise
from skqos.benchmarks.update_tables import make_update_tables


def test_ratios_are_those_to_published_errors():
    rows = {"qos": "rt", "density": 0.05, "model": ["UPCC", "PMF, default"]}
    means = pd.DataFrame({**rows, "mae": [0.6359, 0.5], "rmse": [2.7594, 1.0]})
    first, second = make_baseline_table(add_ratios(means)).splitlines()[2:]
    assert "| 0.636 / 2.759 | 0.636 / 1.380 | 1.000 | 2.000 | WSRec, 20 runs |" in first
    assert second.endswith("| PMF, default | 0.500 / 1.000 |  |  |  |  |")


def test_forecasts_are_averaged_over_seeds():
    task = "forecast 10 % of slot 59 from 8, 4 ahead"
    rows = [("a", 0, 1.0, 3.0), ("a", 1, 2.0, 4.0), ("b", 0, 1.4, 4.5)]
    frame = pd.DataFrame(rows, columns=["model", "seed", "mae", "rmse"]).assign(task=task)
    line = make_forecast_table(frame).splitlines()[-1]
    assert line == "| 59 | 4 | 1.500 / **3.500** | **1.400** / 4.500 |"


def test_only_runs_of_one_kind_have_one_table():
    row = {"model": "a", "seed": 0, "new": "users", "before": 2.0, "updated": 1.0}
    row |= {"service median": 3.0, "others before": 0.5, "others updated": 0.5}
    tables = make_update_tables(pd.DataFrame([row]))
    assert list(tables) == ["entities"]
    line = "| new users | a | 1 | 2.0000 | 1.0000 | 3.0000 | 0.5000 | 0.5000 |"
    assert tables["entities"].splitlines()[-1] == line


def test_a_stream_without_refits_has_no_ratios():
    rows = {"method": ["other", "AMF"], "slot": 16, "mae": 1.0, "rmse": 2.0, "learn_s": 1.0}
    table = make_table(summarise(pd.DataFrame(rows))).splitlines()
    assert table[0] == "| method | MAE, s | RMSE, s | learning, s a slot |"
    assert [line.split(" | ")[0] for line in table[2:]] == ["| AMF", "| other"]


def test_the_cheaper_predictor_of_each_model_is_bold():
    costs = ("file_mb", "start_s", "peak_mb", "pair_ms", "user_ms", "pairs_us")
    rows = [
        {"model": "a", "predictor": "OnnxPredictor", **dict.fromkeys(costs, 1.0)},
        {"model": "a", "predictor": "load_model", **dict.fromkeys(costs, 2.0)},
        {"model": "b", "predictor": "load_model", **dict.fromkeys(costs, 3.0)},
    ]
    frame = pd.DataFrame(rows).assign(export_s=[5.0, None, None], difference=[2e-7, None, None])
    tables = make_export_tables(frame)
    first, second, third = tables["export"].splitlines()[2:]
    assert first.startswith("| `a` | `OnnxPredictor` | **1.0** | **1** |")
    assert second.startswith("| `a` | `load_model` | 2.0 | 2 |")
    assert third.startswith("| `b` | `load_model` | 3.0 |")
    assert tables["export differences"].splitlines()[2:] == ["| `a` | 5 | 2.0e-7 |"]
