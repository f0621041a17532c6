"""Earlier training rows that a fitted estimator keeps for updates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from skqos._arrays import sorted_unique
from skqos.base import TrainingRows

# Upper bound of the number of services, so that a pair of codes is one number.
STRIDE = 2**32


@dataclass(frozen=True)
class ReplayBuffer:
    """A uniform sample of the rows that a network was trained on, without their encoders.

    Each row gets a random priority when it is added. If there are too many rows, those with the
    lowest priorities are kept. As a result, all rows of all fits and updates are kept with the same
    probability.

    Attributes
    ----------
    user_codes, service_codes : ndarray of int32 of shape (n,)
        The rows.
    target : ndarray of float32 of shape (n,) or (n, n_targets)
        Transformed targets; NaN where not observed.
    weights : ndarray of float32 of shape (n,)
        Positive weights of the rows.
    priority : ndarray of float32 of shape (n,)
        Random priorities below 1.
    n_seen : int
        Number of rows from which the sample was drawn.
    """

    user_codes: np.ndarray
    service_codes: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    priority: np.ndarray
    n_seen: int

    @classmethod
    def of_rows(cls, rows: TrainingRows, rng: np.random.RandomState) -> Self:
        """Create a buffer of all given rows."""
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

    def take(self, rows: np.ndarray) -> ReplayBuffer:
        """Return a buffer of the given rows."""
        return replace(
            self,
            user_codes=self.user_codes[rows],
            service_codes=self.service_codes[rows],
            target=self.target[rows],
            weights=self.weights[rows],
            priority=self.priority[rows],
        )

    def limited(self, size: int) -> ReplayBuffer:
        """Return at most `size` rows, in their order."""
        if len(self) <= size:
            return self
        return self.take(np.sort(np.argsort(self.priority, kind="stable")[:size]))

    def joined(self, later: ReplayBuffer) -> ReplayBuffer:
        """Return a buffer with the rows of both."""
        return ReplayBuffer(
            np.concatenate([self.user_codes, later.user_codes]),
            np.concatenate([self.service_codes, later.service_codes]),
            np.concatenate([self.target, later.target]),
            np.concatenate([self.weights, later.weights]),
            np.concatenate([self.priority, later.priority]),
            self.n_seen + later.n_seen,
        )

    def without(self, rows: TrainingRows) -> ReplayBuffer:
        """Return a buffer without targets that were measured again for the same pair."""
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
        """Draw distinct rows, or return all if there are not more than requested."""
        if len(self) <= n_rows:
            return self
        return self.take(rng.permutation(len(self))[:n_rows])

    def appended_to(self, rows: TrainingRows) -> TrainingRows:
        """Append the rows to others with the same codes."""
        return replace(
            rows,
            user_codes=np.concatenate([rows.user_codes, self.user_codes]),
            service_codes=np.concatenate([rows.service_codes, self.service_codes]),
            target=np.concatenate([rows.target, self.target]),
            weights=np.concatenate([rows.weights, self.weights]),
            n_replayed=rows.n_replayed + len(self),
        )
