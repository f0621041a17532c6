"""Runs of any regressor on the splits, with scores in a CSV file."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_list_like

from skqos.benchmarks._models import find_factory, make_model, name_model
from skqos.benchmarks._names import check_known
from skqos.benchmarks._split import Split
from skqos.benchmarks._splits import RECIPES, load_split
from skqos.benchmarks.fits import Fitted, fit_and_predict
from skqos.benchmarks.runs import Task, in_own_process, measure, read_rows
from skqos.benchmarks.scores import flag_outliers, score


class Problem(NamedTuple):
    """Name of a split, which is a column of the results."""

    split: str

    def __str__(self) -> str:
        return self.split


def evaluate(model: Any, split: Split, *, filtered: bool = False) -> dict[str, float]:
    """Fit a regressor to the training rows of a split and score it on the test rows.

    Parameters
    ----------
    model : regressor
        Any scikit-learn regressor over rows of user, service and, optionally, time. It is fitted in
        place and does not see the test values.

    split : Split
        Result of `load_split`, or a split of your own rows.

    filtered : bool, default=False
        Whether to also compute the errors on the test cells that an isolation forest keeps
        (`skqos.metrics.outlier_mask` with a contamination of 0.1, all samples and seed 42). It is
        fitted to all values of the split.

    Returns
    -------
    dict of str to float
        - ``mae``, ``rmse``: errors in the unit of y; ``nmae``: MAE divided by the mean of y;
        - ``mae_filtered``, ``rmse_filtered``: errors on the cells that the filter keeps;
        - ``regret``, ``near_best``: `skqos.metrics.choice_regret` and
          `skqos.metrics.near_best_share` of choices among ten services of a user;
        - ``coverage``, ``winkler``: scores of 90 % intervals, if the model's ``predict`` accepts
          ``quantiles`` and its parameter ``intervals``, if it exists, is True;
        - ``fit_s``, ``predict_s``: CPU seconds; ``peak_mb``: peak memory of this process, in MB.

        Values that were not requested or cannot be computed are NaN.

    See Also
    --------
    run : Several seeds and splits, with each fit in a separate process.

    Examples
    --------
    >>> from skqos.baselines import MedianRegressor
    >>> from skqos.benchmarks import Split, evaluate
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(20, 30, density=0.5, random_state=0)
    >>> split = Split(data.X[::2], data.y[::2], data.X[1::2], data.y[1::2])
    >>> scores = evaluate(MedianRegressor(by="service"), split)
    >>> 0 < scores["mae"] < scores["rmse"]
    True
    """
    if split.y_test is None:
        raise ValueError("split has no y_test, which the scores need.")
    kept = ~flag_outliers(split) if filtered else None
    return _rate(split, fit_and_predict(model, split.blind()), kept)


def run(
    model: str | Callable[..., Any],
    folder: str | os.PathLike[str],
    splits: str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    name: str | None = None,
    filtered: bool = False,
    jobs: int = 1,
    fresh: bool = False,
) -> pd.DataFrame:
    """Run a regressor on splits of WS-DREAM, each fit in a process of its own.

    Each row is added to `out` when its fit has ended, and a further run skips existing rows.
    Progress is logged by ``logging.getLogger("skqos.benchmarks")``. The fits run in new processes,
    so a script must call this function below ``if __name__ == "__main__":``.

    Parameters
    ----------
    model : str or callable
        Factory of the regressor: a class or function, or its ``module:name``. It may have the
        parameters ``seed`` or ``random_state``, ``users`` and ``services`` (DataFrames of context)
        and ``qos``.

    folder : str or path-like
        Folder with the data set, as in `load_split`.

    splits : str or sequence of str
        Names of splits in `list_splits`. A repeated name counts once.

    out : str or path-like
        CSV file of the results.

    seeds : sequence of int, default=(0, 1, 2)
        Seeds of the fits. A repeated seed counts once.

    name : str, default=None
        Name of the model in the results. If None, it is `model`.

    filtered : bool, default=False
        As in `evaluate`.

    jobs : int, default=1
        Number of processes that run at the same time.

    fresh : bool, default=False
        Whether to delete the existing results in `out`.

    Returns
    -------
    DataFrame
        Results of the model, with one row for each split and seed and the columns ``split``,
        ``model``, ``seed``, the scores and costs of `evaluate`, ``date``, ``version`` and
        ``machine``.

    Raises
    ------
    ValueError
        If `splits` or `seeds` is empty, the split or model does not exist, or `out` contains
        results of another benchmark.
    RuntimeError
        If a fit failed. The results of the other fits are kept.

    Examples
    --------
    >>> from skqos.benchmarks import run
    >>> run("my_module:make_model", "wsdream1", "wsdream1-rt-0.025", "out.csv")  # doctest: +SKIP
    """
    names = list(dict.fromkeys([splits] if isinstance(splits, str) else splits))
    if not is_list_like(seeds):
        raise TypeError(f"seeds must be a sequence of integers; got {seeds!r}.")
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1; got {jobs}.")
    seeds = list(dict.fromkeys(seeds))
    for parameter, values in (("splits", names), ("seeds", seeds)):
        if not values:
            raise ValueError(f"{parameter} is empty; give at least one.")
    for split in names:
        check_known("split", split, RECIPES)
    find_factory(model)
    loaded = {split: load_split(split, folder) for split in names}
    label, path = name or name_model(model), Path(out)
    tasks = [Task(label, seed, (Problem(split),)) for seed in seeds for split in names]

    def asked(rows: pd.DataFrame) -> pd.DataFrame:
        chosen = rows["split"].isin(names) & (rows["model"] == label) & rows["seed"].isin(seeds)
        return rows[chosen].reset_index(drop=True)

    if filtered and not fresh:
        _check_filtered(path, asked)

    def fit(task: Task) -> list[Fitted]:
        split = loaded[task.problems[0].split].blind()
        return [in_own_process(_fit, model, split, task.seed)]

    @cache
    def kept(split: str) -> NDArray[np.bool_] | None:
        return ~flag_outliers(loaded[split]) if filtered else None

    def rate(problem: Problem, fitted: Fitted) -> dict[str, Any]:
        return _rate(loaded[problem.split], fitted, kept(problem.split)) | provenance()

    failures = measure(tasks, fit, rate, path, jobs=jobs, fresh=fresh)
    if failures:
        raise RuntimeError("\n".join(["these fits failed:", *failures]))
    return asked(read_rows(path))


def _check_filtered(path: Path, asked: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Raise ValueError if the file has requested rows without errors on filtered cells."""
    rows = read_rows(path) if path.is_file() else pd.DataFrame()
    has_columns = {"split", "model", "seed", "mae_filtered"} <= {*rows}
    if has_columns and asked(rows)["mae_filtered"].isna().any():
        raise ValueError(
            f"filtered=True, but {path} has results of this model without errors on filtered "
            "cells, which are not computed again. Choose another file, or set fresh=True."
        )


def _fit(model: str | Callable[..., Any], split: Split, seed: int) -> Fitted:
    """Create, fit and evaluate a model, in a separate process."""
    return fit_and_predict(make_model(model, split, seed), split)


def _rate(split: Split, fitted: Fitted, kept: NDArray[np.bool_] | None) -> dict[str, float]:
    costs = {name: getattr(fitted, name) for name in ("fit_s", "predict_s", "peak_mb")}
    return score(split, fitted.prediction, fitted.intervals, kept) | costs


def provenance() -> dict[str, str]:
    """Return the date, the version and the machine of a result."""
    from skqos import __version__

    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "version": __version__,
        "machine": machine,
    }
