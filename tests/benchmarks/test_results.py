"""Stored results: each file is read, and only several seeds have a deviation."""

from importlib.resources import files

import pandas as pd
import pytest

from skqos.benchmarks import list_splits, load_results, summarize_results
from skqos.benchmarks._results import _name_splits, average_over_seeds

FOLDER = files("skqos.benchmarks") / "results"


def test_every_file_is_listed_and_every_listed_file_is_there():
    runs = pd.read_csv(FOLDER / "runs.csv")
    assert set(runs["file"]) == {path.name for path in FOLDER.iterdir()} - {"runs.csv"}
    assert set(runs["kind"]) == {"fits", "other"}
    assert runs.notna().all(axis=None)


def test_results_tell_what_was_measured_and_how():
    results = load_results()
    assert set(results["split"]) <= set(list_splits().index)
    origin = ["date", "version", "machine", "command", "model", "qos", "data_set"]
    assert results[origin].notna().all(axis=None)
    pd.to_datetime(results["date"], format="%Y-%m-%d")
    assert not results.duplicated([name for name in results if name != "value"]).any()
    errors = results[results["metric"].isin(["mae", "rmse", "fit_s"])]
    assert (errors["value"] >= 0).all()


def test_stored_numbers_are_those_of_the_files():
    stored = pd.read_csv(FOLDER / "intervals.csv")
    row = stored.query("model == 'SAMoERegressor' and cells == 'given' and qos == 'tp'").iloc[0]
    found = load_results().query(
        "split == 'wsdream1-tp-0.025' and model == 'SAMoERegressor, intervals' and seed == 0"
    )
    found = found.set_index("metric")["value"]
    for metric in ("mae", "coverage", "winkler", "regret", "fit_s"):
        assert found[metric] == row[metric]


def test_only_several_seeds_have_a_deviation():
    rows = {"split": "s", "model": ["a", "a", "b"], "seed": [0, 1, 0], "metric": "mae"}
    summary = summarize_results(pd.DataFrame({**rows, "value": [1.0, 3.0, 5.0]}))
    summary = summary.set_index("model")
    assert summary["mean"].to_dict() == {"a": 2.0, "b": 5.0}
    assert summary["seeds"].to_dict() == {"a": 2, "b": 1}
    assert summary.loc["a", "std"] == 1
    assert pd.isna(summary.loc["b", "std"])


def test_a_stored_mean_counts_its_seeds():
    rows = pd.DataFrame({"model": ["a", "b", "b"], "seed": [None, 0, 1], "mae": [1.0, 2.0, 4.0]})
    means = average_over_seeds(rows.assign(seeds=[3, None, None]), ["model"])
    assert means["mae"].to_dict() == {"a": 1.0, "b": 3.0}
    assert means["seeds"].to_dict() == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"qos": "tp", "density": 0.05}, "wsdream1-tp-0.05"),
        ({"qos": "rt", "cells": "slot 63"}, "wsdream2-rt-imputation-0.1"),
        ({"qos": "rt", "cells": "services"}, "wsdream1-rt-new-services"),
        ({"task": "forecast 10 % of slot 63 from 8"}, "wsdream2-rt-forecast-0.1"),
        ({"task": "forecast_all of slot 63 from 8"}, "wsdream2-rt-forecast-all"),
        ({"task": "imputation 20 % of slot 5 from 4"}, "imputation 20 % of slot 5 from 4"),
        ({"split": "own"}, "own"),
    ],
)
def test_rows_of_the_examples_are_named_after_their_splits(row, name):
    rows = pd.DataFrame([{**row, "model": "m", "seed": 0}])
    assert _name_splits(rows)["split"].tolist() == [name]
