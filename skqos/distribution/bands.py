"""Conformal corrections of quantiles: one for each level, kind of pair and band of predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from skqos.distribution.quantiles import LEVELS

KNOWN, NEW_USER, NEW_SERVICE = GROUPS = (0, 1, 2)
# A band holds so many rows or more, and a kind of pair has so many bands at most.
ROWS_PER_BAND = 300
MAX_BANDS = 10
# Of fewer rows a kind of pair takes the corrections of all.
MIN_ROWS = 50


def group_of(new_user: np.ndarray, new_service: np.ndarray) -> np.ndarray:
    """Tell kinds of pairs apart; a pair of which both are new counts as one of a new user."""
    return np.where(new_user, NEW_USER, np.where(new_service, NEW_SERVICE, KNOWN)).astype(np.int8)


@dataclass(frozen=True)
class BandCorrections:
    """What is added to quantiles so that they cover what was held out.

    Attributes
    ----------
    edges : list of ndarray of shape (n_bands - 1,)
        For each kind of pair, the predictions at which a next band begins.
    shifts : list of ndarray of shape (n_bands, n_levels)
        For each kind of pair, the correction of each band and level.
    """

    edges: list[np.ndarray]
    shifts: list[np.ndarray]

    @classmethod
    def fit(cls, prediction: np.ndarray, group: np.ndarray, excess: np.ndarray) -> Self:
        """Learn from rows that the quantiles were not fitted on.

        Parameters
        ----------
        prediction : ndarray of shape (n,)
            Predictions.
        group : ndarray of int of shape (n,)
            Kind of each pair.
        excess : ndarray of shape (n, n_levels)
            How far the target lies above each quantile.
        """
        edges, shifts = [], []
        for kind in GROUPS:
            rows = np.flatnonzero(group == kind)
            if len(rows) < MIN_ROWS:
                rows = np.arange(len(group))
            n_bands = int(np.clip(len(rows) // ROWS_PER_BAND, 1, MAX_BANDS))
            shares = np.arange(1, n_bands) / n_bands
            edges.append(np.quantile(prediction[rows], shares))
            band = np.searchsorted(edges[-1], prediction[rows])
            shifts.append(
                np.stack([conformal_quantiles(excess[rows[band == k]]) for k in range(n_bands)])
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
    """Quantile of each column at its level, a further row taken into account; 0 of no rows.

    Of n values and the unknown next one, each is equally likely to be the k-th. Levels above a half
    round up and others down, so that intervals between them are rather too wide than too narrow.
    """
    n_rows = len(excess)
    if n_rows == 0:
        return np.zeros(len(LEVELS))
    place = LEVELS * (n_rows + 1)
    rank = np.where(LEVELS > 0.5, np.ceil(place), np.floor(place)).astype(np.int64)
    rank = np.clip(rank, 1, n_rows) - 1
    return np.sort(excess, axis=0)[rank, np.arange(len(LEVELS))]
