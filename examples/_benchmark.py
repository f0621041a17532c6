"""What the benchmarks share: medians, splits, errors, and what a fit and a prediction cost."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skqos.metrics import nan_mean_absolute_error, nan_root_mean_squared_error, outlier_mask

# ru_maxrss is in bytes on macOS, in KiB elsewhere.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Split:
    """Training and test rows of one QoS."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray | None

    def blind(self) -> Split:
        """Leave the test values out: what a model gets to see."""
        return replace(self, y_test=None)

    def permuted(self) -> Split:
        """Shuffle the test values."""
        return replace(self, y_test=np.random.default_rng(0).permutation(self.y_test))


class Fitted(NamedTuple):
    """The prediction of the test rows of a split, and what it took."""

    prediction: np.ndarray
    cost: dict[str, float]


def flag_outliers(split: Split) -> np.ndarray:
    """Mark the test cells that the filtered protocol leaves out; it looks at their labels."""
    values = np.concatenate([split.y, split.y_test])
    return outlier_mask(values, contamination=0.1, max_samples="all", random_state=42)[
        len(split.y) :
    ]


def score(
    values: np.ndarray, prediction: np.ndarray, kept: dict[str, np.ndarray]
) -> dict[str, float]:
    """Errors on all test cells, and on the cells kept by each of the named protocols."""
    scores = {}
    for name, cells in {"": slice(None), **kept}.items():
        scores[f"mae{name}"] = nan_mean_absolute_error(values[cells], prediction[cells])
        scores[f"rmse{name}"] = nan_root_mean_squared_error(values[cells], prediction[cells])
    return scores


def timed(task: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple:
    start = clock()
    result = task()
    return result, clock() - start


def cpu_timed(task: Callable[[], Any]) -> tuple[Any, float]:
    """Time in CPU seconds: other processes of a busy machine do not count."""
    return timed(task, time.process_time)


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux ru_maxrss of a new process starts at the peak of the one that started it.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e6


def join(splits: Sequence[Split]) -> tuple[np.ndarray, np.ndarray]:
    """Training rows of all QoS, NaN for what a row does not tell."""
    X = np.concatenate([split.X for split in splits])
    y = np.full((len(X), len(splits)), np.nan)
    start = 0
    for k, split in enumerate(splits):
        y[start : start + len(split.y), k] = split.y
        start += len(split.y)
    return X, y


def fit_and_predict(model: Any, splits: Sequence[Split]) -> list[Fitted]:
    """Fit one split, or several QoS at once; the time of the fit is shared out among them."""
    X, y = join(splits) if len(splits) > 1 else (splits[0].X, splits[0].y)
    _, fit_s = cpu_timed(lambda: model.fit(X, y))
    found = []
    for k, split in enumerate(splits):
        prediction, predict_s = cpu_timed(lambda split=split: model.predict(split.X_test))
        cost = {"fit_s": fit_s / len(splits), "pairs_per_s": len(prediction) / predict_s}
        found.append((prediction[:, k] if prediction.ndim > 1 else prediction, cost))
    peak = {"peak_mb": peak_memory()}
    return [Fitted(prediction, cost | peak) for prediction, cost in found]
