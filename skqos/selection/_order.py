"""The cheapest columns of each row of a matrix, with a condition and shared ranks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

NOBODY = -1


def cheapest(costs: np.ndarray, n: int) -> np.ndarray:
    """Return the columns of the n lowest costs of each row, in order; ties in order of columns.

    Parameters
    ----------
    costs : ndarray of shape (n_rows, n_columns)
        No NaN.
    n : int
        At most the number of columns.

    Returns
    -------
    ndarray of int64 of shape (n_rows, n)

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.selection._order import cheapest
    >>> cheapest(np.array([[3.0, 1.0, 2.0, 1.0]]), 3)
    array([[1, 3, 2]])
    """
    highest = np.partition(costs, n - 1, axis=1)[:, n - 1, None]
    rows, columns = np.nonzero(costs <= highest)
    order = np.lexsort((costs[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    # There may be too many costs equal to the highest.
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return columns[place < n].reshape(len(costs), n)


def cheapest_accepted(
    costs: np.ndarray, n: int, accept: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return the n cheapest accepted columns of each row, with few calls of `accept`.

    Columns of a row are checked in order of their costs, in batches of doubling size, until n are
    accepted.

    Parameters
    ----------
    costs : ndarray of shape (n_rows, n_columns)
        Costs without NaN; infinite ones are not accepted.
    n : int
        At most the number of columns.
    accept : callable
        Called with the rows and columns of m entries; returns a bool for each.

    Returns
    -------
    ndarray of int64 of shape (n_rows, n)
        Columns in order of their costs, followed by -1 if fewer than n are accepted.
    """
    n_rows, n_columns = costs.shape
    chosen = np.full((n_rows, n), NOBODY)
    n_chosen = np.zeros(n_rows, dtype=np.int64)
    waiting, asked = np.arange(n_rows), 0
    while len(waiting):
        up_to = min(n_columns, 2 * asked or n)
        columns = cheapest(costs[waiting], up_to)[:, asked:]
        finite = np.isfinite(costs[waiting[:, None], columns])
        accepted = finite.copy()
        row, place = np.nonzero(finite)
        accepted[finite] = accept(waiting[row], columns[row, place])
        place = n_chosen[waiting, None] + accepted.cumsum(axis=1) - 1
        row, found = np.nonzero(accepted & (place < n))
        chosen[waiting[row], place[row, found]] = columns[row, found]
        n_chosen[waiting] += accepted.sum(axis=1)
        asked = up_to
        # After an infinite cost, all are infinite.
        waiting = waiting[(n_chosen[waiting] < n) & finite[:, -1] & (asked < n_columns)]
    return chosen


def shared_ranks(costs: np.ndarray, tolerance: float) -> np.ndarray:
    """Rank costs, with shared ranks for near ties.

    The cheapest entry without a rank gets the next rank and shares it with all entries that cost at
    most `tolerance` more. A rank is one more than the number of entries with a better rank.

    Parameters
    ----------
    costs : ndarray of shape (n_rows, n)
        Costs, ascending along each row.
    tolerance : float
        In the unit of the costs.

    Returns
    -------
    ndarray of int64 of shape (n_rows, n)
        Ranks, starting at 1.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.selection._order import shared_ranks
    >>> shared_ranks(np.array([[1.0, 1.1, 1.2, 1.3]]), 0.15)
    array([[1, 1, 3, 3]])
    """
    ranks = np.ones(costs.shape, dtype=np.int64)
    leaders = costs[:, 0]
    for place in range(1, costs.shape[1]):
        is_next = costs[:, place] > leaders + tolerance
        leaders = np.where(is_next, costs[:, place], leaders)
        ranks[:, place] = np.where(is_next, place + 1, ranks[:, place - 1])
    return ranks
