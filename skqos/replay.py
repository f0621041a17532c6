"""Rows that updates train on again: what a fitted estimator keeps of its training rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from skqos._arrays import sorted_unique
from skqos.base import TrainingRows

# More than there can be services, so that a pair of codes is one number.
STRIDE = 2**32


@dataclass(frozen=True)
class ReplayBuffer:
    """A uniform sample of the rows that a network was trained on, without their encoders.

    Each row draws a random priority when it comes; where there are too many, those of the lowest
    priority stay. So every row of all fits and updates stays with the same probability.

    Attributes
    ----------
    user_codes, service_codes : ndarray of int32 of shape (n,)
        The rows.
    target : ndarray of float32 of shape (n,) or (n, n_targets)
        Transformed targets; NaN where not observed.
    weights : ndarray of float32 of shape (n,)
        Positive weights of the rows.
    priority : ndarray of float32 of shape (n,)
        Random numbers below 1.
    n_seen : int
        How many rows these are a sample of.
    """

    user_codes: np.ndarray
    service_codes: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    priority: np.ndarray
    n_seen: int

    @classmethod
    def of_rows(cls, rows: TrainingRows, rng: np.random.RandomState) -> Self:
        """Keep all of some rows."""
        n_rows = len(rows.target)
        return cls(
            rows.user_codes.astype(np.int32),
            rows.service_codes.astype(np.int32),
            rows.target.astype(np.float32),
            rows.weights.astype(np.float32),
            rng.random_sample(n_rows).astype(np.float32),
            n_rows,
        )

    def __len__(self) -> int:
        return len(self.target)

    @property
    def is_complete(self) -> bool:
        """Whether no row is missing."""
        return len(self) == self.n_seen

    def take(self, rows: np.ndarray) -> ReplayBuffer:
        """Return the given rows, as a sample of the same."""
        return replace(
            self,
            user_codes=self.user_codes[rows],
            service_codes=self.service_codes[rows],
            target=self.target[rows],
            weights=self.weights[rows],
            priority=self.priority[rows],
        )

    def limited(self, size: int) -> ReplayBuffer:
        """Keep at most `size` rows, in their order."""
        if len(self) <= size:
            return self
        return self.take(np.sort(np.argsort(self.priority, kind="stable")[:size]))

    def joined(self, later: ReplayBuffer) -> ReplayBuffer:
        """Append the rows of another buffer."""
        return ReplayBuffer(
            np.concatenate([self.user_codes, later.user_codes]),
            np.concatenate([self.service_codes, later.service_codes]),
            np.concatenate([self.target, later.target]),
            np.concatenate([self.weights, later.weights]),
            np.concatenate([self.priority, later.priority]),
            self.n_seen + later.n_seen,
        )

    def without(self, rows: TrainingRows) -> ReplayBuffer:
        """Forget the targets that were observed again, for the same user and service."""
        if not len(self):
            return self
        measured = rows.user_codes * STRIDE + rows.service_codes
        cells = sorted_unique(measured)
        earlier, later = (side.target.reshape(len(side.target), -1) for side in (self, rows))
        observed = np.zeros((len(cells), later.shape[1]), dtype=bool)
        np.logical_or.at(observed, np.searchsorted(cells, measured), ~np.isnan(later))
        mine = self.user_codes.astype(np.int64) * STRIDE + self.service_codes
        position = np.minimum(np.searchsorted(cells, mine), len(cells) - 1)
        again = observed[position] & (cells[position] == mine)[:, None]
        target = np.where(again, np.float32(np.nan), earlier)
        forgotten = np.isnan(target).all(axis=1)
        left = replace(
            self,
            target=target.reshape(self.target.shape),
            n_seen=self.n_seen - int(forgotten.sum()),
        )
        return left.take(~forgotten)

    def sample(self, n_rows: int, rng: np.random.RandomState) -> ReplayBuffer:
        """Draw distinct rows, all of them if there are no more than asked for."""
        if len(self) <= n_rows:
            return self
        return self.take(rng.permutation(len(self))[:n_rows])

    def appended_to(self, rows: TrainingRows) -> TrainingRows:
        """Put the rows behind others, whose encoders know the same entities by the same codes."""
        return replace(
            rows,
            user_codes=np.concatenate([rows.user_codes, self.user_codes]),
            service_codes=np.concatenate([rows.service_codes, self.service_codes]),
            target=np.concatenate([rows.target, self.target]),
            weights=np.concatenate([rows.weights, self.weights]),
        )
