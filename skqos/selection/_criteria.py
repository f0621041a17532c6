"""Criteria of a ranking: direction, limit and weight of each target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Self

import numpy as np

from skqos._errors import about

DIRECTIONS = {"minimize": 1.0, "maximize": -1.0}


@dataclass(frozen=True)
class Criteria:
    """Direction, limit and weight of each target; a 0-dimensional array applies to all.

    Attributes
    ----------
    signs : ndarray of float64 of shape () or (n_targets,)
        1 if low values are good, -1 if high values are good.
    limits : ndarray of float64 of shape () or (n_targets,)
        Limits; NaN for no limit.
    weights : ndarray of float64 of shape () or (n_targets,)
        Non-negative weights.
    min_probability : float or None
        Probability with which each limit must be met.
    """

    signs: np.ndarray
    limits: np.ndarray
    weights: np.ndarray
    min_probability: float | None

    @classmethod
    def read(cls, direction: Any, limit: Any, weights: Any, min_probability: float | None) -> Self:
        """Check the parameters of `rank_services` with these names.

        Raises
        ------
        ValueError, TypeError
            If a parameter is invalid.
        """
        criteria = cls(
            signs=_read("direction", direction, _sign),
            limits=_read("limit", limit, _limit),
            weights=_read("weights", 1.0 if weights is None else weights, _weight),
            min_probability=min_probability,
        )
        if not criteria.weights.any():
            raise ValueError("weights must not all be 0.")
        if min_probability is not None and not criteria.has_limit:
            raise ValueError(
                f"min_probability={min_probability} is used only with limit; give a limit, or "
                "leave min_probability out."
            )
        return criteria

    @property
    def has_limit(self) -> bool:
        """Whether any target has a limit."""
        return not np.isnan(self.limits).all()

    def for_targets(self, n_targets: int) -> Self:
        """Return criteria whose arrays have an entry for each target.

        Raises
        ------
        ValueError
            If the number of entries differs from the number of targets.
        """
        return replace(
            self,
            signs=_spread("direction", self.signs, n_targets),
            limits=_spread("limit", self.limits, n_targets),
            weights=_spread("weights", self.weights, n_targets),
        )

    def points(self, predictions: np.ndarray) -> np.ndarray:
        """Change the sign of predictions, (..., n_targets), so that low values are good."""
        return predictions * self.signs

    def costs(self, predictions: np.ndarray) -> np.ndarray:
        """Return the cost of each candidate of each user, combined over the targets.

        Parameters
        ----------
        predictions : ndarray of shape (n_users, n_services, n_targets)
            For one target, the cost is the prediction or its negative. Several targets are scaled
            to the distance from the median of the user's candidates in units of their interquartile
            range; the cost is the weighted mean.

        Returns
        -------
        ndarray of float64 of shape (n_users, n_services)
            Costs; low values are good.
        """
        points = self.points(predictions)
        if points.shape[2] == 1:
            return points[:, :, 0]
        lower, median, upper = np.quantile(points, [0.25, 0.5, 0.75], axis=1, keepdims=True)
        spread = upper - lower
        # If most candidates are equal, the full range is used, or 1 if all are equal.
        spread = np.where(spread > 0, spread, np.ptp(points, axis=1, keepdims=True))
        scaled = (points - median) / np.where(spread > 0, spread, 1.0)
        return scaled @ (self.weights / self.weights.sum())

    def probabilities(self, below: np.ndarray) -> np.ndarray:
        """Convert P(y <= limit), of shape (n, n_targets), to the probability of meeting the limit.

        It is NaN for targets without limit.
        """
        met = np.where(self.signs > 0, below, 1.0 - below)
        return np.where(np.isnan(self.limits), np.nan, met)


def _read(name: str, given: Any, read: Callable[[Any], float]) -> np.ndarray:
    """Read one value, or one for each target."""
    if isinstance(given, np.ndarray) and given.ndim == 0:
        given = given.item()
    if given is None or np.isscalar(given):
        return np.array(read(given))
    with about(name):
        values = [read(value) for value in given]
    if not values:
        raise ValueError(f"{name} is empty; give one value, or one for each target.")
    return np.array(values)


def _sign(direction: Any) -> float:
    if not isinstance(direction, str) or direction not in DIRECTIONS:
        raise ValueError(f"direction must be 'minimize' or 'maximize'; got {direction!r}.")
    return DIRECTIONS[direction]


def _limit(limit: Any) -> float:
    if limit is None:
        return np.nan
    if not isinstance(limit, Real) or not np.isfinite(float(limit)):
        raise ValueError(
            f"limit must be a finite number in the unit of y, or None for no limit; got {limit!r}."
        )
    return float(limit)


def _weight(weight: Any) -> float:
    if not isinstance(weight, Real) or not 0 <= float(weight) < np.inf:
        raise ValueError(f"weights must be finite numbers, none below 0; got {weight!r}.")
    return float(weight)


def _spread(name: str, values: np.ndarray, n_targets: int) -> np.ndarray:
    if values.ndim and len(values) != n_targets:
        raise ValueError(
            f"{name} has {len(values)} values, but the model predicts {n_targets} target(s); give "
            "one for each, or one for all."
        )
    return np.broadcast_to(values, n_targets)
