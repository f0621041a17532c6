"""The Pareto front: points that no other point dominates."""

from __future__ import annotations

import numpy as np

POINTS_PER_BLOCK = 256


def is_on_front(points: np.ndarray) -> np.ndarray:
    """Return which points are not dominated by another one.

    A point dominates another one if none of its coordinates is larger and one is smaller. Equal
    points do not dominate each other. Points are compared in blocks, which limits the memory.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_targets)
        Points without NaN; low values are good in all targets.

    Returns
    -------
    ndarray of bool of shape (n_points,)

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.selection._pareto import is_on_front
    >>> is_on_front(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0], [3.0, 1.0]]))
    array([ True,  True, False,  True])
    """
    # A point that dominates another one precedes it in lexicographic order.
    order = np.lexsort(points.T[::-1])
    ordered = points[order]
    front = _front_of_two if points.shape[1] == 2 else _front_by_blocks
    on_front = np.empty(len(points), dtype=bool)
    on_front[order] = front(ordered)
    return on_front


def _front_of_two(ordered: np.ndarray) -> np.ndarray:
    """Return the front of sorted points of two targets, in one pass."""
    first, second = ordered.T
    # The best point of each group of equal first values is its first one.
    starts = np.r_[True, first[1:] > first[:-1]]
    group = np.cumsum(starts) - 1
    best = second[starts]
    best_ahead = np.r_[np.inf, np.minimum.accumulate(best)[:-1]]
    return (second == best[group]) & (second < best_ahead[group])


def _front_by_blocks(ordered: np.ndarray) -> np.ndarray:
    """Compare sorted points, block by block, with the front of the previous blocks."""
    on_front = np.zeros(len(ordered), dtype=bool)
    for start in range(0, len(ordered), POINTS_PER_BLOCK):
        block = ordered[start : start + POINTS_PER_BLOCK]
        left = np.flatnonzero(~_is_dominated(block, ordered[:start][on_front[:start]]))
        left = left[~_is_dominated(block[left], block[left])]
        on_front[start + left] = True
    return on_front


def _is_dominated(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which points are dominated by any of the others."""
    as_good = np.ones((len(points), len(others)), dtype=bool)
    better = np.zeros((len(points), len(others)), dtype=bool)
    for target in range(points.shape[1]):
        mine, theirs = points[:, target, None], others[None, :, target]
        as_good &= theirs <= mine
        better |= theirs < mine
    return np.asarray((as_good & better).any(axis=1))
