"""Rows of X that are encoded and predicted only once, for several requests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skqos.distribution.model import Intervals, Pairs
from skqos.distribution.quantiles import check_confidence_level, check_levels


@dataclass(frozen=True)
class PredictedRows:
    """Encoded and predicted rows of X.

    Attributes
    ----------
    values : ndarray of float64 of shape (n, n_targets)
        Predictions in the unit of y.
    pairs : Pairs
        Codes, and predictions in units of the transformed target.
    shape : tuple of int
        Number of known users and services.
    distribution : Intervals or None
        Distribution of measurements around predictions; None for a model without intervals.
    """

    values: np.ndarray
    pairs: Pairs
    shape: tuple[int, int]
    distribution: Intervals | None

    def quantiles(self, levels: list[float]) -> np.ndarray:
        """Return quantiles of all rows, of shape (n, n_targets, n_levels)."""
        return self.distribution.quantiles(self.pairs, check_levels(levels))

    def intervals(self, rows: np.ndarray, confidence_level: float) -> np.ndarray:
        """Return the ends of the intervals of some rows, of shape (n_rows, n_targets, 2)."""
        levels = np.array(check_confidence_level(confidence_level))
        return self.distribution.quantiles(self.pairs.take(rows), levels)

    def probabilities(self, rows: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """Return P(y <= limit) of some rows, of shape (n_rows, n_targets)."""
        return self.distribution.probability(self.pairs.take(rows), limits)

    def known(self, rows: np.ndarray) -> np.ndarray:
        """Return whether the ids of some rows are known, of shape (n_rows, 2)."""
        pairs = self.pairs.take(rows)
        return np.column_stack([pairs.users, pairs.services]) < self.shape
