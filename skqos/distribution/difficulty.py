"""Errors of users and services, which are features for the width of intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

# Number of rows of the average entity that are added to each entity, as sums over few rows are not
# reliable.
PRIOR_ROWS = 2.0


@dataclass(frozen=True)
class EntityErrors:
    """Targets and errors of the training rows of each user, or of each service.

    Attributes
    ----------
    sums : ndarray of float64 of shape (n_entities, 6)
        Over the rows of an entity: their number, and the sums of the transformed target, its
        square, the error, its absolute value and its square.
    """

    sums: np.ndarray

    @classmethod
    def of_rows(
        cls, codes: np.ndarray, target: np.ndarray, prediction: np.ndarray, n_entities: int
    ) -> Self:
        """Sum up rows by the code of their entity."""
        error = target - prediction
        parts = (np.ones(len(codes)), target, target**2, error, np.abs(error), error**2)
        sums = [np.bincount(codes, part, minlength=n_entities) for part in parts]
        return cls(np.stack(sums, axis=1))

    def __add__(self, later: EntityErrors) -> EntityErrors:
        """Add the rows of another object, which may have more entities."""
        missing = len(later.sums) - len(self.sums)
        return EntityErrors(np.pad(self.sums, ((0, missing), (0, 0))) + later.sums)

    def are_unknown(self, codes: np.ndarray) -> np.ndarray:
        """Return which codes belong to entities without rows."""
        has_rows = np.append(self.sums[:, 0] > 0, False)
        return ~has_rows[np.minimum(codes, len(self.sums))]

    def features(self, codes: np.ndarray) -> np.ndarray:
        """Return features of the entities with the given codes.

        Parameters
        ----------
        codes : ndarray of int64 of shape (n,)
            Codes; values from the number of entities on are unknown entities.

        Returns
        -------
        ndarray of float64 of shape (n, 6)
            Mean and standard deviation of the target; mean, mean absolute value and root mean
            square of the error; logarithm of one more than the number of rows.
        """
        sums = np.concatenate([self.sums, np.zeros((1, self.sums.shape[1]))])
        rows = np.minimum(codes, len(self.sums))
        # Computed once for each entity or for each code, whichever are fewer.
        if len(rows) < len(sums):
            return self._describe(sums[rows])
        return self._describe(sums)[rows]

    def _describe(self, sums: np.ndarray) -> np.ndarray:
        average = self.sums.sum(axis=0) / max(self.sums[:, 0].sum(), 1.0)
        n_rows = sums[:, :1]
        means = (sums + PRIOR_ROWS * average) / (n_rows + PRIOR_ROWS)
        _, target, target_square, error, absolute, square = means.T
        deviation = np.sqrt(np.maximum(target_square - target**2, 0.0))
        counts = np.log1p(n_rows[:, 0])
        return np.stack([target, deviation, error, absolute, np.sqrt(square), counts], axis=1)


def describe_pairs(
    users: EntityErrors,
    services: EntityErrors,
    user_codes: np.ndarray,
    service_codes: np.ndarray,
    prediction: np.ndarray,
) -> np.ndarray:
    """Return features of pairs that do not depend on their measurements.

    Parameters
    ----------
    users, services : EntityErrors
        Errors of users and of services.
    user_codes, service_codes : ndarray of int64 of shape (n,)
        Codes; values from the number of entities on are unknown entities.
    prediction : ndarray of float64 of shape (n,)
        Predictions in units of the transformed target.

    Returns
    -------
    ndarray of float32 of shape (n, 15)
    """
    columns = [prediction[:, None]]
    for side, codes in ((users, user_codes), (services, service_codes)):
        columns += [side.features(codes), side.are_unknown(codes)[:, None]]
    return np.concatenate(columns, axis=1, dtype=np.float32)
