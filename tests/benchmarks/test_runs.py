"""Fits in processes of their own: memory, failures, resuming, progress."""

import logging
import os
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from skqos.benchmarks.fits import Fitted, peak_memory
from skqos.benchmarks.runs import (
    Progress,
    Task,
    append_rows,
    in_own_process,
    log_to_stdout,
    measure,
    open_results,
    read_rows,
)


class Problem(NamedTuple):
    name: str


def test_memory_is_that_of_the_process_alone():
    np.ones(40_000_000)  # 320 MB, and gone: the peak of this process stays
    own = in_own_process(peak_memory)
    assert 50 < own < 0.8 * peak_memory()


def test_a_process_that_dies_takes_only_its_own_task_with_it(tmp_path, caplog):
    def fit(task):
        if task.model == "deadly":
            in_own_process(os._exit, 3)
        return [Fitted(np.zeros(2), 0.0, 0.0, 1.0)]

    def rate(_, fitted):
        return {"mae": 1.0, "rmse": 2.0, "fit_s": fitted.fit_s, "peak_mb": fitted.peak_mb}

    tasks = [Task(name, 0, (Problem("p"),)) for name in ("first", "deadly", "last")]
    with caplog.at_level(logging.INFO, logger="skqos.benchmarks"):
        failures = measure(tasks, fit, rate, tmp_path / "results.csv")
    assert len(failures) == 1
    assert "BrokenProcessPool" in failures[0]
    assert list(read_rows(tmp_path / "results.csv")["model"]) == ["first", "last"]
    assert "[2/3] Problem(name='p'), deadly, seed 0: FAILED" in caplog.text


def test_rows_are_appended_by_the_names_of_their_columns(tmp_path):
    path = tmp_path / "results.csv"
    append_rows(path, [{"model": "a", "mae": 1.0}])
    append_rows(path, [{"mae": 2.0, "model": "b"}])
    assert pd.read_csv(path).to_dict("list") == {"model": ["a", "b"], "mae": [1.0, 2.0]}
    with pytest.raises(ValueError, match=r"has the columns \['model', 'mae'\]; got \['model'\]"):
        append_rows(path, [{"model": "c"}])
    assert len(pd.read_csv(path)) == 2


def test_an_incomplete_line_does_not_count_and_is_cut_off(tmp_path):
    path = tmp_path / "results.csv"
    append_rows(path, [{"split": "a", "seed": 0, "mae": 1.0}, {"split": "a", "seed": 1, "mae": 2}])
    whole = path.read_text()
    path.write_text(f"{whole}a,2")
    assert list(read_rows(path)["seed"]) == [0, 1]
    assert open_results(path, ["split", "seed"], fresh=False) == {("a", "0"), ("a", "1")}
    assert path.read_text() == whole
    with pytest.raises(ValueError, match="must begin with the columns"):
        open_results(path, ["task"], fresh=False)
    assert open_results(path, ["task"], fresh=True) == set()
    assert not path.exists()


def test_progress_tells_the_time_left_by_model(caplog):
    tasks = [Task(model, seed, ()) for seed in (0, 1) for model in ("fast", "slow")]
    progress = Progress(tasks, jobs=2)
    with caplog.at_level(logging.INFO, logger="skqos.benchmarks"):
        for task, seconds in zip(tasks, (60, 6000, 180, 1), strict=True):
            progress.tell(task, "done", seconds)
    # 3 tasks as slow as the first; then (60 + 6000) s; then 6000 s: each by 2 processes.
    expected = ["about 2 min", "about 50 min", "about 50 min"]
    assert [text.split("; ")[1].removesuffix(" left") for text in caplog.messages[:3]] == expected
    assert caplog.messages[3].endswith("done")


def test_progress_is_written_only_where_it_was_asked_for(capsys):
    logger = logging.getLogger("skqos.benchmarks")
    logger.info("unasked")
    with log_to_stdout():
        logger.info("asked")
    logger.info("again unasked")
    assert capsys.readouterr().out == "asked\n"
