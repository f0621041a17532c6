"""Sets of large integers, random draws, and exact scaling."""

import numpy as np


def sorted_unique(values: np.ndarray) -> np.ndarray:
    """Return the distinct values in ascending order.

    Like `numpy.unique`, but by sorting, because its hash table took 7 s for 6 million distinct
    integers.

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

    Time and memory are proportional to the numbers of drawn and excluded integers. All integers are
    enumerated only if most are excluded, or more than half of the remaining ones are drawn.

    Parameters
    ----------
    n_all : int
        Integers are drawn from 0 to ``n_all - 1``.
    n_drawn : int
        Number of integers to draw, at most the number of remaining ones.
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
    # At least every fourth candidate is new, so that the loop ends soon.
    if 2 * n_drawn > n_left or 2 * n_left < n_all:
        drawn = difference_sorted(np.arange(n_all), excluded)
    else:
        drawn = np.empty(0, dtype=np.int64)
        while len(drawn) < n_drawn:
            candidates = rng.randint(n_all, size=2 * (n_drawn - len(drawn)), dtype=np.int64)
            fresh = difference_sorted(candidates, excluded)
            drawn = sorted_unique(np.concatenate([drawn, fresh]))
    # All sets of this size are equally likely, also after taking a random subset.
    surplus = rng.permutation(len(drawn))[n_drawn:]
    return np.delete(drawn, surplus)


def power_of_two(*arrays: np.ndarray) -> float:
    """Return the smallest power of two that bounds the magnitude of all values, 1 if all are 0.

    Division by it is exact, and the sum of squares of the results is finite and not 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos._arrays import power_of_two
    >>> power_of_two(np.array([0.0, 3.0]), np.array([-5.0]))
    8.0
    """
    largest = max((float(np.abs(array).max()) for array in arrays if array.size), default=0.0)
    # Beyond these exponents, the power or its inverse would be infinite.
    exponent = np.clip(np.frexp(largest)[1], -1000, 1000)
    return float(2.0**exponent) if largest else 1.0
