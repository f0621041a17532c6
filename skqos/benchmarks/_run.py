"""Any regressor on the splits: fits, scores, rows of a CSV."""

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

from skqos.benchmarks._models import find_factory, make_model, name_model
from skqos.benchmarks._names import check_known
from skqos.benchmarks._split import Split
from skqos.benchmarks._splits import RECIPES, load_split
from skqos.benchmarks.fits import Fitted, fit_and_predict
from skqos.benchmarks.runs import Task, in_own_process, measure, read_rows
from skqos.benchmarks.scores import flag_outliers, score


class Problem(NamedTuple):
    """A split by its name: a column of the results."""

    split: str

    def __str__(self) -> str:
        return self.split


def evaluate(model: Any, split: Split, *, filtered: bool = False) -> dict[str, float]:
    """Fit a regressor to the training rows of a split and score it on the test rows.

    Parameters
    ----------
    model : regressor
        Any scikit-learn regressor of (user, service) or (user, service, time) rows. It is fitted
        in place, and does not see the test values.

    split : Split
        Of `load_split`, or one of your own rows.

    filtered : bool, default=False
        Whether to also score the test cells that an isolation forest keeps
        (`skqos.metrics.outlier_mask` with contamination 0.1, all samples, seed 42), which is
        fitted to all values of the split.

    Returns
    -------
    dict of str to float
        - ``mae``, ``rmse``: errors in the unit of y; ``nmae``: the MAE over the mean of y;
        - ``mae_filtered``, ``rmse_filtered``: on the cells that the filter keeps;
        - ``regret``, ``near_best``: of choices of one among ten services of a user, as
          `skqos.metrics.choice_regret` and `skqos.metrics.near_best_share` have it;
        - ``coverage``, ``winkler``: of 90 % intervals, if the model's ``predict`` takes
          ``quantiles`` and its ``intervals``, if it has such a parameter, is on;
        - ``fit_s``, ``predict_s``: CPU seconds; ``peak_mb``: largest memory of this process, in MB.

        What was not asked for or cannot be told is NaN.

    See Also
    --------
    run : Several seeds and splits, each fit in a process of its own.

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

    Each row is added to `out` when its fit has ended. A further run skips what is there. Progress
    is logged by ``logging.getLogger("skqos.benchmarks")``. The fits start in fresh processes, so
    that a script must call this below ``if __name__ == "__main__":``.

    Parameters
    ----------
    model : str or callable
        What makes the regressor: a class or a function, or ``module:name`` of one. It may have
        the parameters ``seed`` or ``random_state``, ``users`` and ``services`` (the context, a
        DataFrame each) and ``qos``.

    folder : str or path-like
        The files of the data set, as in `load_split`.

    splits : str or sequence of str
        Names of `list_splits`.

    out : str or path-like
        The CSV of the results.

    seeds : sequence of int, default=(0, 1, 2)
        One fit each.

    name : str, default=None
        Name of the model in the results. None takes `model`.

    filtered : bool, default=False
        As in `evaluate`.

    jobs : int, default=1
        Number of processes at a time.

    fresh : bool, default=False
        Whether to forget the results in `out`.

    Returns
    -------
    DataFrame
        The results of the model on the splits, a row for each split and seed: ``split``,
        ``model``, ``seed``, the scores and costs of `evaluate`, and ``date``, ``version`` and
        ``machine``.

    Raises
    ------
    ValueError
        If there is no such split or model, or `out` holds results of another benchmark.
    RuntimeError
        If a fit failed. The results of the others are kept.

    Examples
    --------
    >>> from skqos.benchmarks import run
    >>> run("my_module:make_model", "wsdream1", "wsdream1-rt-0.025", "out.csv")  # doctest: +SKIP
    """
    names = [splits] if isinstance(splits, str) else list(splits)
    for split in names:
        check_known("split", split, RECIPES)
    find_factory(model)
    loaded = {split: load_split(split, folder) for split in names}
    label, path = name or name_model(model), Path(out)
    tasks = [Task(label, seed, (Problem(split),)) for seed in seeds for split in names]

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
        raise RuntimeError("\n".join(["these failed:", *failures]))
    rows = read_rows(path)
    asked = rows["split"].isin(names) & (rows["model"] == label) & rows["seed"].isin(seeds)
    return rows[asked].reset_index(drop=True)


def _fit(model: str | Callable[..., Any], split: Split, seed: int) -> Fitted:
    """Make a model, fit it and predict: all that is done in a process of its own."""
    return fit_and_predict(make_model(model, split, seed), split)


def _rate(split: Split, fitted: Fitted, kept: NDArray[np.bool_] | None) -> dict[str, float]:
    costs = {name: getattr(fitted, name) for name in ("fit_s", "predict_s", "peak_mb")}
    return score(split, fitted.prediction, fitted.intervals, kept) | costs


def provenance() -> dict[str, str]:
    """Tell when, with which version and on what machine a result was measured."""
    from skqos import __version__

    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "version": __version__,
        "machine": machine,
    }
