"""Splitters that state their training share as the QoS literature does."""

import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import BaseShuffleSplit
from sklearn.utils import check_random_state, indexable

__all__ = ["DensitySplit"]

_ID_NAMES = ("user", "service", "time step")


class DensitySplit(BaseShuffleSplit):
    """Random train/test splits whose training share is a density of the user-service matrix.

    The QoS literature counts the training share in *cells*: at a density of 2.5 %, training takes
    as many observed rows as 2.5 % of all cells of the matrix, whether or not a cell was observed.
    The rows are drawn uniformly without replacement, and all others are the test. No row is
    filtered, and users or services without a training row stay in the test.

    Parameters
    ----------
    n_splits : int, default=5
        Number of independent draws.

    density : float, default=0.025
        Share of all cells to train on, in (0, 1). Training has ``round(density * n_cells)`` rows.

    test_size : int, float or None, default=None
        How many of the remaining rows to test on: an int is a count, a float in (0, 1] a share of
        them, None takes them all.

    n_users : int or None, default=None
        Number of users of the matrix. None counts the distinct ids in the first column of X.

    n_services : int or None, default=None
        Number of services of the matrix. None counts the distinct ids in the second column of X.

    n_time_steps : int or None, default=None
        Number of time steps. When given, the third column of X is the time step, and the cells are
        those of users x services x steps; None counts the cells of users x services.

    random_state : int, RandomState instance or None, default=None
        Seeds the draws. Pass an int for the same splits at every call.

    See Also
    --------
    sklearn.model_selection.ShuffleSplit : Counts the training share in rows of X.

    Notes
    -----
    Give `n_users` and `n_services` where X is a part of the data: ids that are absent from X are
    not counted otherwise. Repeated rows of X are drawn one by one.

    References
    ----------
    .. [1] Z. Zheng, Y. Zhang, M. R. Lyu, "Investigating QoS of Real-World Web Services",
       IEEE Transactions on Services Computing 7(1), 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.model_selection import DensitySplit
    >>> X = np.array([[user, service] for user in range(10) for service in range(20)])
    >>> splitter = DensitySplit(n_splits=2, density=0.1, random_state=0)
    >>> for train, test in splitter.split(X):
    ...     print(len(train), len(test))
    20 180
    20 180
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        density: float = 0.025,
        test_size: float | int | None = None,
        n_users: int | None = None,
        n_services: int | None = None,
        n_time_steps: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_splits = n_splits
        self.density = density
        self.test_size = test_size
        self.n_users = n_users
        self.n_services = n_services
        self.n_time_steps = n_time_steps
        self.random_state = random_state

    def split(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        groups: Any = None,  # noqa: ARG002  (part of the splitter interface)
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Generate row indices that split X into training and test rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            User ids in column 0, service ids in column 1, and time steps in column 2 if
            `n_time_steps` is given. Ids are of any kind.

        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Ignored, exists for API compatibility.

        groups : object, default=None
            Ignored, exists for API compatibility.

        Yields
        ------
        train : ndarray of shape (n_train,), dtype intp
            Training rows, ascending.

        test : ndarray of shape (n_test,), dtype intp
            Test rows, ascending.

        Raises
        ------
        ValueError
            If a parameter is out of its range, X holds more ids than `n_users`, `n_services` or
            `n_time_steps` say, or X has too few rows for `density` or `test_size`.
        """
        X, _ = indexable(X, y)
        self._check_parameters()
        X = _id_columns(X, 2 if self.n_time_steps is None else 3)
        n_train = self._train_size(len(X), self._count_cells(X))
        n_test = self._test_size(len(X) - n_train)
        random_state = check_random_state(self.random_state)
        for _ in range(self.n_splits):
            rows = random_state.permutation(len(X))
            # Rows keep the order of X, which later gathers read faster.
            yield np.sort(rows[:n_train]), np.sort(rows[n_train : n_train + n_test])

    def _check_parameters(self) -> None:
        _check_count("n_splits", self.n_splits)
        for name in ("n_users", "n_services", "n_time_steps"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        if not (isinstance(self.density, Real) and 0 < self.density < 1):
            raise ValueError(f"density must be a float in (0, 1); got {self.density!r}.")
        self._check_test_size()

    def _check_test_size(self) -> None:
        size = self.test_size
        is_count = isinstance(size, Integral) and size >= 1
        is_share = isinstance(size, Real) and not isinstance(size, Integral) and 0 < size <= 1
        if not (size is None or is_count or is_share):
            raise ValueError(
                f"test_size must be None, an int >= 1 (a count of rows) or a float in (0, 1] "
                f"(a share of the rows that do not train); got {size!r}."
            )

    def _count_cells(self, X: pd.DataFrame) -> int:
        names = ["n_users", "n_services", "n_time_steps"][: X.shape[1]]
        return math.prod(
            _matrix_size(name, getattr(self, name), X.iloc[:, position])
            for position, name in enumerate(names)
        )

    def _train_size(self, n_rows: int, n_cells: int) -> int:
        n_train = round(self.density * n_cells)
        if n_train == 0:
            raise ValueError(
                f"density={self.density} of {n_cells} cells is less than one row to train on; "
                f"it must be at least {1 / n_cells:.4g}."
            )
        if n_train >= n_rows:
            raise ValueError(
                f"density={self.density} of {n_cells} cells asks for {n_train} training rows, but "
                f"X has {n_rows} rows and at least one must be left to test on; the largest "
                f"possible density is {_round_down((n_rows - 1) / n_cells)}."
            )
        return n_train

    def _test_size(self, n_rest: int) -> int:
        if self.test_size is None:
            return n_rest
        if not isinstance(self.test_size, Integral):
            return max(1, round(self.test_size * n_rest))
        if self.test_size > n_rest:
            raise ValueError(
                f"test_size={self.test_size} exceeds the {n_rest} rows that do not train."
            )
        return int(self.test_size)


def _id_columns(X: ArrayLike, n_columns: int) -> pd.DataFrame:
    """Return the first columns of X, or raise if X has fewer."""
    X = X if isinstance(X, pd.DataFrame) else np.asarray(X)
    if X.ndim != 2 or X.shape[1] < n_columns:
        raise ValueError(
            f"X must have at least {n_columns} columns, the first {n_columns} being the ids "
            f"{_ID_NAMES[:n_columns]}; got the shape {X.shape}."
        )
    return pd.DataFrame(X).iloc[:, :n_columns]


def _matrix_size(name: str, given: int | None, ids: pd.Series) -> int:
    found = ids.nunique(dropna=False)
    if given is None:
        return found
    if found > given:
        raise ValueError(f"{name}={given}, but its column of X holds {found} distinct values.")
    return int(given)


def _check_count(name: str, value: object) -> None:
    if not (isinstance(value, Integral) and value >= 1):
        raise ValueError(f"{name} must be an int >= 1; got {value!r}.")


def _round_down(value: float, digits: int = 4) -> float:
    """Cut to significant digits, so that the figure named is still possible."""
    scale = 10.0 ** (digits - 1 - math.floor(math.log10(value))) if value > 0 else 1.0
    return math.floor(value * scale) / scale
