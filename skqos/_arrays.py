"""Sets of large integers by sorting, which is faster than numpy's hashing; draws; exact units."""

import numpy as np


def sorted_unique(values: np.ndarray) -> np.ndarray:
    """Return the distinct values in ascending order.

    Does what `numpy.unique` does, whose hash table took 7 s for 6 million distinct
    integers, and 0.1 s where they are sorted already.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Integers.

    Returns
    -------
    ndarray
        At most n values.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos._arrays import sorted_unique
    >>> sorted_unique(np.array([3, 1, 3]))
    array([1, 3])
    """
    ordered = np.sort(values, kind="stable")
    first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def difference_sorted(values: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """Return the values that are not excluded, in their order.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Integers.
    excluded : ndarray of shape (m,)
        Integers in ascending order.

    Returns
    -------
    ndarray
        At most n values.
    """
    if len(excluded) == 0:
        return values
    position = np.searchsorted(excluded, values)
    return values[excluded[np.minimum(position, len(excluded) - 1)] != values]


def draw_distinct(
    n_all: int,
    n_drawn: int,
    rng: np.random.RandomState,
    excluded: np.ndarray | None = None,
) -> np.ndarray:
    """Draw distinct integers below `n_all`, each set of them equally likely.

    Time and memory grow with the numbers of drawn and excluded integers: all integers are
    enumerated only if most are excluded, or more than half of those that are left are drawn.

    Parameters
    ----------
    n_all : int
        Integers are drawn from 0 to ``n_all - 1``.
    n_drawn : int
        How many; at most as many as are left.
    rng : RandomState
        Source of randomness.
    excluded : ndarray of shape (m,), default=None
        Integers that are not drawn, ascending and distinct.

    Returns
    -------
    ndarray of int64 of shape (n_drawn,)
        In ascending order.
    """
    excluded = np.empty(0, dtype=np.int64) if excluded is None else excluded
    n_left = n_all - len(excluded)
    # Elsewhere at least every fourth candidate is fresh, so that the loop ends soon.
    if 2 * n_drawn > n_left or 2 * n_left < n_all:
        drawn = difference_sorted(np.arange(n_all), excluded)
    else:
        drawn = np.empty(0, dtype=np.int64)
        while len(drawn) < n_drawn:
            candidates = rng.randint(n_all, size=2 * (n_drawn - len(drawn)), dtype=np.int64)
            fresh = difference_sorted(candidates, excluded)
            drawn = sorted_unique(np.concatenate([drawn, fresh]))
    # Of all sets of its size each is as likely; a random subset keeps that.
    surplus = rng.permutation(len(drawn))[n_drawn:]
    return np.delete(drawn, surplus)


def power_of_two(*arrays: np.ndarray) -> float:
    """Return the least power of two that no value of some arrays exceeds in size, 1 if all are 0.

    Values divided by it keep all their digits, and the sum of their squares is no longer infinite
    or 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos._arrays import power_of_two
    >>> power_of_two(np.array([0.0, 3.0]), np.array([-5.0]))
    8.0
    """
    largest = max((float(np.abs(array).max()) for array in arrays if array.size), default=0.0)
    # Above, the power itself would be infinite; below, its inverse.
    exponent = np.clip(np.frexp(largest)[1], -1000, 1000)
    return float(2.0**exponent) if largest else 1.0
