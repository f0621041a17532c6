"""Predictions of all candidate pairs, and further results for some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from skqos.distribution.mixin import DistributionMixin
from skqos.selection._candidates import take_rows

METHODS = ("predict", "predict_interval", "predict_probability", "is_known")


class Predictions(Protocol):
    """Predictions of n rows of X."""

    @property
    def values(self) -> np.ndarray:
        """Predictions in the unit of y, of shape (n, n_targets)."""

    def quantiles(self, levels: list[float]) -> np.ndarray:
        """Return quantiles of all rows, of shape (n, n_targets, n_levels)."""

    def intervals(self, rows: np.ndarray, confidence_level: float) -> np.ndarray:
        """Return the ends of the intervals of some rows, of shape (n_rows, n_targets, 2)."""

    def probabilities(self, rows: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """Return P(y <= limit) of some rows, of shape (n_rows, n_targets)."""

    def known(self, rows: np.ndarray) -> np.ndarray | None:
        """Return whether the ids of some rows are known, (n_rows, 2); None if unknown."""


def predict_rows(estimator: Any, X: Any) -> Predictions:
    """Predict rows of X; an estimator of this package encodes and predicts each row only once."""
    kind = type(estimator)
    if isinstance(estimator, DistributionMixin) and all(map(_is_own, _methods_of(kind))):
        return estimator._predicted_rows(X)
    return AskedRows(estimator, X)


def _methods_of(kind: type) -> list[Callable]:
    return [getattr(kind, name) for name in METHODS]


def _is_own(method: Callable) -> bool:
    """Return whether a method is of this package, and not of a subclass elsewhere."""
    return method.__module__.partition(".")[0] == "skqos"


class AskedRows:
    """Predictions of any regressor, whose methods are called with the requested rows.

    Parameters
    ----------
    estimator : estimator
        Fitted regressor.
    X : DataFrame or ndarray of n rows
        Rows of X.
    """

    def __init__(self, estimator: Any, X: Any) -> None:
        self.estimator, self.X = estimator, X
        values = np.asarray(estimator.predict(X), dtype=np.float64)
        self.values = values.reshape(len(values), -1)

    def quantiles(self, levels: list[float]) -> np.ndarray:
        """Return quantiles of all rows, of shape (n, n_targets, n_levels)."""
        found = self.estimator.predict(self.X, quantiles=levels)
        return np.reshape(found, (*self.values.shape, len(levels)))

    def intervals(self, rows: np.ndarray, confidence_level: float) -> np.ndarray:
        """Return the ends of the intervals of some rows, of shape (n_rows, n_targets, 2)."""
        shape = self.values.shape[1], 2
        return self._ask(self.estimator.predict_interval, rows, confidence_level, shape=shape)

    def probabilities(self, rows: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """Return P(y <= limit) of some rows, of shape (n_rows, n_targets)."""
        limit = limits if len(limits) > 1 else float(limits[0])
        return self._ask(self.estimator.predict_probability, rows, limit, shape=limits.shape)

    def known(self, rows: np.ndarray) -> np.ndarray | None:
        """Return whether the ids of some rows are known, (n_rows, 2); None if unknown."""
        if not hasattr(self.estimator, "is_known"):
            return None
        return self._ask(self.estimator.is_known, rows, shape=(2,)).astype(bool)

    def _ask(
        self,
        method: Callable[..., np.ndarray],
        rows: np.ndarray,
        *arguments: Any,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        """Call a method; estimators reject an X without rows."""
        if not len(rows):
            return np.empty((0, *shape))
        return np.reshape(method(take_rows(self.X, rows), *arguments), (-1, *shape))
