"""One fit and one prediction, with their costs."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from skqos.benchmarks._split import Split

QUANTILES = [0.05, 0.95]
# ru_maxrss is in bytes on macOS, in KiB elsewhere.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Fitted(NamedTuple):
    """Predictions of the test rows of a split, with their costs.

    Parameters
    ----------
    prediction : ndarray of shape (n_test,)
        Predictions in the unit of y.

    fit_s, predict_s : float
        CPU seconds of fit and prediction.

    peak_mb : float
        Peak resident memory of the process so far, in MB.

    intervals : ndarray of shape (n_test, 2) or None
        Quantiles at the levels `QUANTILES`, if the model predicts them.
    """

    prediction: NDArray[np.float64]
    fit_s: float
    predict_s: float
    peak_mb: float
    intervals: NDArray[np.float64] | None = None


def timed(task: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple:
    """Return the result of a task and its time."""
    start = clock()
    result = task()
    return result, clock() - start


def cpu_timed(task: Callable[[], Any]) -> tuple[Any, float]:
    """Measure CPU seconds, which do not depend on other processes."""
    return timed(task, time.process_time)


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, in MB; NaN on Windows."""
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux, ru_maxrss of a new process starts at the peak of its parent.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e6


def join(splits: Sequence[Split]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the training rows of all QoS, with NaN for missing values.

    y has the shape (n,) for one QoS, and (n, n_qos) for several.
    """
    if len(splits) == 1:
        return splits[0].X, splits[0].y
    X = np.concatenate([split.X for split in splits])
    y = np.full((len(X), len(splits)), np.nan)
    start = 0
    for k, split in enumerate(splits):
        y[start : start + len(split.y), k] = split.y
        start += len(split.y)
    return X, y


def fit_and_predict(model: Any, split: Split) -> Fitted:
    """Fit the training rows of a split and predict its test rows."""
    return fit_jointly(model, [split])[0]


def fit_jointly(model: Any, splits: Sequence[Split]) -> list[Fitted]:
    """Fit one split, or several QoS jointly; the time of the fit is divided among them."""
    X, y = join(splits)
    _, fit_s = cpu_timed(lambda: model.fit(X, y))
    found = []
    for k, split in enumerate(splits):
        prediction, predict_s = cpu_timed(lambda split=split: model.predict(split.X_test))
        prediction = np.asarray(prediction, dtype=np.float64)
        prediction = prediction[:, k] if prediction.ndim > 1 else prediction
        found.append(Fitted(prediction, fit_s / len(splits), predict_s, peak_memory()))
    if len(splits) == 1 and predicts_intervals(model):
        intervals = model.predict(splits[0].X_test, quantiles=QUANTILES)
        return [found[0]._replace(intervals=intervals)]
    return found


def predicts_intervals(model: Any) -> bool:
    """Return whether a model, or the last step of a pipeline, predicts quantiles."""
    last = model[-1] if isinstance(model, Pipeline) else model
    takes_quantiles = "quantiles" in inspect.signature(last.predict).parameters
    return takes_quantiles and getattr(last, "intervals", True) is not False
