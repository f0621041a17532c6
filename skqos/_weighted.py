"""Statistics of weighted rows; a row of weight n counts as n rows of weight 1."""

from __future__ import annotations

import numpy as np
import pandas as pd

# Relative rounding error of a sum of weights.
ROUNDING = 1e-12


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the median of weighted values.

    Parameters
    ----------
    values : ndarray of float64 of shape (n,)
        At least one.
    weights : ndarray of float64 of shape (n,)
        Positive.

    Returns
    -------
    float
        The mean of the lower and the upper median.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos._weighted import weighted_median
    >>> weighted_median(np.array([1.0, 5.0, 9.0]), np.array([1.0, 2.0, 3.0]))
    7.0
    """
    return float(group_medians(values, np.zeros(len(values), dtype=np.int64), weights)[1][0])


def group_medians(
    values: np.ndarray, groups: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the groups in ascending order, and the weighted median of each.

    Parameters
    ----------
    values : ndarray of float64 of shape (n,)
        At least one.
    groups : ndarray of int64 of shape (n,)
        Group of each value.
    weights : ndarray of float64 of shape (n,)
        Positive.

    Returns
    -------
    groups : ndarray of int64 of shape (n_groups,)
    medians : ndarray of float64 of shape (n_groups,)
        The mean of the lower and the upper median.
    """
    order = np.lexsort((values, groups))
    values, groups = values[order], groups[order]
    # The cumulative sum restarts in each group.
    reached = pd.Series(weights[order]).groupby(groups).cumsum().to_numpy()
    first = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))
    n_rows = np.diff(np.append(first, len(groups)))
    half = np.repeat(reached[first + n_rows - 1] / 2, n_rows)
    lower = first + np.add.reduceat(reached < half * (1 - ROUNDING), first, dtype=np.int64)
    upper = first + np.add.reduceat(reached <= half * (1 + ROUNDING), first, dtype=np.int64)
    lower, upper = values[lower], values[upper]
    # Halved before adding, because the sum may be infinite, unless half of a value is 0.
    return groups[first], np.where(lower == upper, lower, lower / 2 + upper / 2)


def weighted_quantile(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    """Return a quantile of weighted values, interpolated as `numpy.quantile` does by default.

    Parameters
    ----------
    values : ndarray of float64 of shape (n,)
        At least one.
    weights : ndarray of float64 of shape (n,)
        Positive weights. If their mean is below 1, the mean counts as one row.
    level : float
        In [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from skqos._weighted import weighted_quantile
    >>> weighted_quantile(np.array([1.0, 5.0]), np.array([2.0, 1.0]), 0.75)
    3.0
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    row = min(1.0, reached[-1] / len(values))
    place = (reached[-1] / row - 1) * level
    below = np.floor(place)
    bounds = np.array([below, below + 1]) * row * (1 + ROUNDING)
    ends = np.minimum(np.searchsorted(reached, bounds, side="right"), len(values) - 1)
    return float(np.quantile(values[order[ends]], place - below))
