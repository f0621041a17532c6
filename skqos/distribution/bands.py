"""Conformal corrections of quantiles: one for each level, kind of pair and band of predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from skqos.distribution.quantiles import LEVELS

KNOWN, NEW_USER, NEW_SERVICE = GROUPS = (0, 1, 2)
# Minimum number of rows of a band, and maximum number of bands of a kind of pair.
ROWS_PER_BAND = 300
MAX_BANDS = 10
# A kind of pair with fewer rows uses the corrections of all rows.
MIN_ROWS = 50


def group_of(new_user: np.ndarray, new_service: np.ndarray) -> np.ndarray:
    """Return the kind of each pair; a pair with two unknown ids counts as a new user."""
    return np.where(new_user, NEW_USER, np.where(new_service, NEW_SERVICE, KNOWN)).astype(np.int8)


@dataclass(frozen=True)
class BandCorrections:
    """Corrections of quantiles, so that they cover held-out rows.

    Attributes
    ----------
    edges : list of ndarray of shape (n_bands - 1,)
        Predictions at which the next band begins, for each kind of pair.
    shifts : list of ndarray of shape (n_bands, n_levels)
        Correction of each band and level, for each kind of pair.
    """

    edges: list[np.ndarray]
    shifts: list[np.ndarray]

    @classmethod
    def fit(cls, prediction: np.ndarray, group: np.ndarray, excess: np.ndarray) -> Self:
        """Learn corrections from rows on which the quantiles were not fitted.

        Parameters
        ----------
        prediction : ndarray of shape (n,)
            Predictions.
        group : ndarray of int of shape (n,)
            Kind of each pair.
        excess : ndarray of shape (n, n_levels)
            Target minus each quantile.
        """
        edges, shifts = [], []
        for kind in GROUPS:
            rows = np.flatnonzero(group == kind)
            if len(rows) < MIN_ROWS:
                rows = np.arange(len(group))
            n_bands = int(np.clip(len(rows) // ROWS_PER_BAND, 1, MAX_BANDS))
            shares = np.arange(1, n_bands) / n_bands
            edge = np.unique(np.quantile(prediction[rows], shares, method="inverted_cdf"))
            # All edges are below the highest prediction, so that no band is empty.
            edges.append(edge[edge < prediction[rows].max()])
            band = np.searchsorted(edges[-1], prediction[rows])
            shifts.append(
                np.stack(
                    [conformal_quantiles(excess[rows[band == k]]) for k in range(band.max() + 1)]
                )
            )
        return cls(edges, shifts)

    def of(self, prediction: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Return the corrections of pairs, of shape (n, n_levels)."""
        found = np.empty((len(prediction), len(LEVELS)))
        for kind in GROUPS:
            rows = group == kind
            band = np.searchsorted(self.edges[kind], prediction[rows])
            found[rows] = self.shifts[kind][band]
        return found


def conformal_quantiles(excess: np.ndarray) -> np.ndarray:
    """Return the conformal quantile of each column at its level; 0 without rows.

    Among n values and the unknown next one, each is equally likely to be the k-th. Levels above 0.5
    are rounded up and others down, so that intervals are too wide rather than too narrow.
    """
    n_rows = len(excess)
    if n_rows == 0:
        return np.zeros(len(LEVELS))
    place = LEVELS * (n_rows + 1)
    rank = np.where(LEVELS > 0.5, np.ceil(place), np.floor(place)).astype(np.int64)
    rank = np.clip(rank, 1, n_rows) - 1
    return np.sort(excess, axis=0)[rank, np.arange(len(LEVELS))]
