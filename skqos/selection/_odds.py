"""Probabilities of single pairs of a block, computed only when needed."""

from __future__ import annotations

import numpy as np

from skqos.selection._criteria import Criteria
from skqos.selection._predictions import Predictions


class Odds:
    """Probabilities of meeting the limits, computed when they are first needed.

    Parameters
    ----------
    criteria : Criteria
        Criteria of all targets.
    predictions : Predictions
        Predictions of the pairs of users and services, sorted by user. If there are limits, the
        model predicts intervals.
    shape : tuple of int
        Number of users and of services.
    """

    def __init__(
        self, criteria: Criteria, predictions: Predictions, shape: tuple[int, int]
    ) -> None:
        self.criteria = criteria
        self.predictions = predictions
        self.shape = shape
        n_pairs = shape[0] * shape[1] if criteria.has_limit else 0
        self._found = np.empty((n_pairs, len(criteria.limits)))
        self._is_found = np.zeros(n_pairs, dtype=bool)

    def __call__(self, users: np.ndarray, services: np.ndarray) -> np.ndarray:
        """Return probabilities of shape (n, n_targets); NaN for targets without limit."""
        pairs = np.ravel_multi_index((users, services), self.shape)
        new = pairs[~self._is_found[pairs]]
        self._found[new] = self._compute(new)
        self._is_found[new] = True
        return self._found[pairs]

    def _compute(self, rows: np.ndarray) -> np.ndarray:
        # Without a limit, any number can be used.
        limits = np.nan_to_num(self.criteria.limits)
        # A value equal to a lower limit meets it.
        limits = np.where(self.criteria.signs < 0, np.nextafter(limits, -np.inf), limits)
        return self.criteria.probabilities(self.predictions.probabilities(rows, limits))
