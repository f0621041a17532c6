"""Probabilities of single pairs of a block, computed only when needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from skqos.selection._candidates import take_rows
from skqos.selection._criteria import Criteria


def ask(
    method: Callable[..., np.ndarray], rows: Any, *arguments: Any, shape: tuple[int, ...]
) -> np.ndarray:
    """Call a method of an estimator on rows of X, also without rows, which estimators reject.

    Parameters
    ----------
    method : callable
        Called with the rows and the arguments.
    rows : DataFrame or ndarray of n rows
        Rows of X; n may be 0.
    *arguments : object
        Further arguments of the method.
    shape : tuple of int
        Shape of the result for one row.

    Returns
    -------
    ndarray of shape (n, *shape)
    """
    if not len(rows):
        return np.empty((0, *shape))
    return np.reshape(method(rows, *arguments), (-1, *shape))


class Odds:
    """Probabilities of meeting the limits, computed when they are first needed.

    Parameters
    ----------
    estimator : estimator
        Estimator, which predicts intervals if there are limits.
    criteria : Criteria
        Criteria of all targets.
    X : DataFrame or ndarray
        One row for each pair of users and services, sorted by user.
    shape : tuple of int
        Number of users and of services.
    """

    def __init__(self, estimator: Any, criteria: Criteria, X: Any, shape: tuple[int, int]) -> None:
        self.estimator = estimator
        self.criteria = criteria
        self.X = X
        self.shape = shape
        n_pairs = shape[0] * shape[1] if criteria.has_limit else 0
        self._found = np.empty((n_pairs, len(criteria.limits)))
        self._is_found = np.zeros(n_pairs, dtype=bool)

    def __call__(self, users: np.ndarray, services: np.ndarray) -> np.ndarray:
        """Return probabilities of shape (n, n_targets); NaN for targets without limit."""
        pairs = np.ravel_multi_index((users, services), self.shape)
        new = pairs[~self._is_found[pairs]]
        self._found[new] = self._compute(take_rows(self.X, new))
        self._is_found[new] = True
        return self._found[pairs]

    def _compute(self, rows: Any) -> np.ndarray:
        # Without a limit, any number can be used.
        limits = np.nan_to_num(self.criteria.limits)
        limit = limits if len(limits) > 1 else float(limits[0])
        method = self.estimator.predict_probability
        return self.criteria.probabilities(ask(method, rows, limit, shape=(len(limits),)))
