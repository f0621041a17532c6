"""Quantiles of y at fixed levels, and interpolation between them."""

from __future__ import annotations

from typing import Any

import numpy as np

from skqos._errors import about
from skqos._parameters import plain_value
from skqos.metrics._intervals import interval_quantiles

# Estimated levels; quantiles of other levels are interpolated.
LEVELS = np.array(
    [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99]
)


def check_levels(quantiles: Any) -> np.ndarray:
    """Return levels of quantiles as an array of shape (n_levels,).

    Raises
    ------
    ValueError
        If there is no level, or a level is outside the range of `LEVELS`.
    TypeError
        If they are not numbers.
    """
    with about("quantiles"):
        values = np.asarray(plain_value(quantiles))
        if values.ndim != 1 or not len(values):
            raise ValueError(
                f"quantiles must be a list of one or more levels, such as [0.05, 0.5, 0.95]; got "
                f"{quantiles!r:.60}."
            )
        if values.dtype.kind not in "fiu":
            raise TypeError(f"quantiles must contain numbers; got {quantiles!r:.60}.")
        # Written so that NaN is out of range.
        if not ((values >= LEVELS[0]) & (values <= LEVELS[-1])).all():
            raise ValueError(
                f"quantiles must be between {LEVELS[0]} and {LEVELS[-1]}, because there are too "
                f"few rows for more extreme levels; got {quantiles!r:.60}."
            )
    return values.astype(np.float64)


def check_confidence_level(confidence_level: Any) -> list[float]:
    """Return the levels of the two ends of a central interval.

    Raises
    ------
    ValueError
        If the level is not above 0 and at most 0.98.
    TypeError
        If it is not a number.
    """
    level, largest = plain_value(confidence_level), float(LEVELS[-1] - LEVELS[0])
    if isinstance(level, bool) or not isinstance(level, int | float):
        raise TypeError(f"confidence_level must be a number; got {confidence_level!r:.60}.")
    if not 0 < level <= largest:
        raise ValueError(
            f"confidence_level must be above 0 and at most {largest}; got {confidence_level}."
        )
    return interval_quantiles(level)


def check_limits(limit: Any, n_targets: int) -> np.ndarray:
    """Return one limit per target, of shape (n_targets,).

    Raises
    ------
    ValueError
        If their number is neither 1 nor the number of targets, or a limit is NaN.
    TypeError
        If they are not numbers.
    """
    with about("limit"):
        limits = np.asarray(plain_value(limit))
        if limits.dtype.kind not in "fiu":
            raise TypeError(f"limit must be a number, or one per target; got {limit!r:.60}.")
        limits = limits.astype(np.float64)
        if limits.ndim > 1 or limits.size not in (1, n_targets):
            raise ValueError(
                f"limit must be a number, or one for each of {n_targets} target(s); got "
                f"{limit!r:.60}."
            )
        if np.isnan(limits).any():
            raise ValueError(f"limit must not be NaN; got {limit!r:.60}.")
    return np.broadcast_to(limits.reshape(-1), n_targets)


def interpolate(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Interpolate other levels from quantiles at `LEVELS`.

    Parameters
    ----------
    values : ndarray of shape (..., n_levels)
        Quantiles, not decreasing.
    levels : ndarray of shape (k,)
        Levels within the range of `LEVELS`.

    Returns
    -------
    ndarray of shape (..., k)
    """
    above = np.searchsorted(LEVELS, levels).clip(1)
    share = (levels - LEVELS[above - 1]) / (LEVELS[above] - LEVELS[above - 1])
    # Infinite quantiles times 0 would be NaN, and rounding must not change the order of quantiles.
    lower, upper = values[..., above - 1], values[..., above]
    return np.where(share == 1, upper, np.minimum(lower + share * (upper - lower), upper))


def probability_below(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Interpolate P(y <= limit) from quantiles at `LEVELS`.

    Parameters
    ----------
    values : ndarray of shape (n, n_targets, n_levels)
        Quantiles, not decreasing.
    limits : ndarray of shape (n_targets,)
        Limits in the unit of the quantiles.

    Returns
    -------
    ndarray of shape (n, n_targets)
        Probabilities: 0 below the first quantile, 1 from the last one on.
    """
    limits = limits[:, None]
    n_below = (values <= limits).sum(axis=-1, keepdims=True)
    above = n_below.clip(1, len(LEVELS) - 1)
    low, high = (np.take_along_axis(values, k, axis=-1) for k in (above - 1, above))
    width = high - low
    # Limits far outside the range would overflow.
    share = (np.clip(limits, low, high) - low) / np.where(width > 0, width, 1.0)
    between = LEVELS[above - 1] + share * (LEVELS[above] - LEVELS[above - 1])
    found = np.where(n_below == 0, 0.0, np.where(n_below == len(LEVELS), 1.0, between))
    return found[..., 0]
