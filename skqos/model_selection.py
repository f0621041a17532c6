"""Splitters of the protocols of the QoS literature."""

import datetime
import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import BaseShuffleSplit
from sklearn.utils import check_random_state

from skqos._errors import check_same_length
from skqos._parameters import check_numbers, parameter_names, with_plain_parameters
from skqos._times import learn_time_scale, read_time_step
from skqos.inputs import Columns, ContextLayout, as_frame, check_names, read_columns

__all__ = ["DensitySplit", "SlotSplit"]

_ID_NAMES = ("user", "service", "time step")


class DensitySplit(BaseShuffleSplit):
    """Random splits whose training share is a density of the user-service matrix.

    The QoS literature counts the training share in *cells*: at a density of 2.5 %, the number of
    training cells is 2.5 % of all cells of the matrix, whether or not they were observed. The
    training cells are drawn uniformly without replacement from the observed cells, and the rows of
    all other cells are the test set. All rows of a cell that was measured repeatedly are in the
    same set. No row is filtered, and users or services without a training row are kept in the test
    set.

    Parameters
    ----------
    n_splits : int, default=5
        Number of independent draws.

    density : float, default=0.025
        Fraction of all cells that are training cells, in (0, 1). There are
        ``round(density * n_cells)`` training cells, with all their rows.

    test_size : int, float or None, default=None
        Number of test rows: an int is a count, a float in (0, 1] is a fraction of the remaining
        rows, and None uses all remaining rows.

    n_users : int or None, default=None
        Number of users of the matrix. If None, it is the number of distinct ids in column 0 of X.

    n_services : int or None, default=None
        Number of services of the matrix. If None, it is the number of distinct ids in column 1 of
        X.

    n_time_steps : int or None, default=None
        Number of time steps. If given, the third column of X is the time, and the cells are those
        of users x services x steps. If None, the cells are those of users x services, and all rows
        of a pair belong to one cell.

    random_state : int, RandomState instance or None, default=None
        Controls the random draws. Pass an int for reproducible splits across several calls.

    unit : {"cell", "row"}, default="cell"
        Unit that is drawn. With "cell", all rows of a cell are in the same set. With "row", rows
        are drawn one by one: repeated measurements of a cell may be in both sets, and their error
        then says little about the error for unmeasured cells. Without repeated measurements, the
        two are equal.

    time_step : str, Timedelta, timedelta or timedelta64, default=None
        Length of a time step, for example "15min". Required if `n_time_steps` is given and times
        are time stamps, and must be None otherwise. Use the same value as for `TPMCFRegressor`.

    See Also
    --------
    sklearn.model_selection.ShuffleSplit : Counts the training share in rows of X.

    Notes
    -----
    Set `n_users` and `n_services` if X is a part of the data. Otherwise ids that are missing from X
    are not counted.

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
        unit: Literal["cell", "row"] = "cell",
        time_step: str | datetime.timedelta | np.timedelta64 | None = None,
    ) -> None:
        self.n_splits = n_splits
        self.density = density
        self.test_size = test_size
        self.n_users = n_users
        self.n_services = n_services
        self.n_time_steps = n_time_steps
        self.random_state = random_state
        self.unit = unit
        self.time_step = time_step

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
            User ids in column 0, service ids in column 1, and times in column 2 if `n_time_steps`
            is given. Ids may be of any kind; times are integers or time stamps.

        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Not used, present for API consistency.

        groups : object, default=None
            Not used, present for API consistency.

        Yields
        ------
        train : ndarray of shape (n_train,), dtype intp
            Training rows, ascending.

        test : ndarray of shape (n_test,), dtype intp
            Test rows, ascending.

        Raises
        ------
        ValueError
            If a parameter is out of range, an id is missing or of a different kind than the others,
            the name of a column of X belongs to another position, X contains more ids than
            `n_users`, `n_services` or `n_time_steps`, or X has too few cells for `density` or rows
            for `test_size`.
        """
        return with_plain_parameters(self)._split(X, y)

    def _split(
        self, X: ArrayLike, y: ArrayLike | None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        self._check_parameters()
        ids = _ids_of(_read_columns(self, X, y, 2 if self.n_time_steps is None else 3))
        n_cells = _count_cells(self, ids)
        units = number_units(ids, self.unit)
        n_train = _train_size(self.density, n_cells, units, "X", n_left=1)
        random_state = check_random_state(self.random_state)
        for _ in range(self.n_splits):
            place = np.argsort(random_state.permutation(units.max() + 1))[units]
            # Rows in the order of X are read faster later.
            yield np.flatnonzero(place < n_train), self._test_rows(place, n_train)

    def _test_rows(self, place: NDArray[np.intp], n_train: int) -> NDArray[np.intp]:
        """Return the test rows: those of the cells drawn after the training cells."""
        rest = np.flatnonzero(place >= n_train)
        n_test = self._test_size(len(rest))
        return np.sort(rest[np.argsort(place[rest], kind="stable")[:n_test]])

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002
        """Return the number of splits.

        Parameters
        ----------
        X, y, groups : object, default=None
            Not used, present for API consistency.

        Returns
        -------
        int
        """
        return _n_splits(self)

    def _check_parameters(self) -> None:
        _check_common(self)
        for name in ("n_users", "n_services", "n_time_steps"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        if self.time_step is not None and self.n_time_steps is None:
            raise ValueError(
                f"time_step={self.time_step!r} is used only with n_time_steps, because otherwise "
                "no times are read from X. Set n_time_steps, or leave time_step out."
            )
        _check_density(self.density)
        self._check_test_size()

    def _check_test_size(self) -> None:
        size = self.test_size
        is_count = isinstance(size, Integral) and not isinstance(size, bool) and size >= 1
        is_share = isinstance(size, Real) and not isinstance(size, Integral) and 0 < size <= 1
        if not (size is None or is_count or is_share):
            raise ValueError(
                f"test_size must be None, an int >= 1 (a count of rows) or a float in (0, 1] "
                f"(a fraction of the rows that are not for training); got {size!r}."
            )

    def _test_size(self, n_rest: int) -> int:
        if self.test_size is None:
            return n_rest
        if not isinstance(self.test_size, Integral):
            return max(1, round(self.test_size * n_rest))
        if self.test_size > n_rest:
            raise ValueError(
                f"test_size={self.test_size} exceeds the {n_rest} rows that are not for training."
            )
        return self.test_size


class SlotSplit(BaseShuffleSplit):
    """Train on a window of time slots, test on one slot.

    This is the protocol of temporal QoS prediction. The last split tests on the last time slot of
    X, the split before it on the slot before, and so on. There are two tasks:

    - *Imputation* predicts unmeasured cells of a slot. Training rows are drawn from the window that
      ends with the tested slot. The test rows are the rows of this slot that were not drawn.
    - A *forecast* predicts a slot without any measurement. Training rows are those of the window
      before the tested slot, and all rows of this slot are test rows.

    Parameters
    ----------
    n_splits : int, default=1
        Number of tested slots, one in each split.

    window : int, default=8
        Number of training slots. Slots without a row in X are not counted, so that the window
        extends further back over a gap.

    density : float or None, default=None
        Fraction of all cells of the window (users x services x slots) that are training cells, in
        (0, 1). They are drawn uniformly without replacement, with all their rows. None uses all
        rows of the window, which requires ``forecast=True``.

    forecast : bool, default=False
        Whether the window ends before the tested slot.

    n_users : int or None, default=None
        Number of users of the matrix. If None, it is the number of distinct ids in column 0 of X.

    n_services : int or None, default=None
        Number of services of the matrix. If None, it is the number of distinct ids in column 1 of
        X.

    random_state : int, RandomState instance or None, default=None
        Controls the random draws. Pass an int for reproducible splits across several calls.

    unit : {"cell", "row"}, default="cell"
        Unit that is drawn. With "cell", all rows of a cell are in the same set. With "row", rows
        are drawn one by one: repeated measurements of a cell may be in both sets, and their error
        then says little about the error for unmeasured cells. Without repeated measurements, the
        two are equal.

    time_step : str, Timedelta, timedelta or timedelta64, default=None
        Length of a time step, for example "15min". Required if times are time stamps, and must be
        None if they are integers. It may be longer than that of `TPMCFRegressor`: with "1D", each
        test set is one day.

    See Also
    --------
    DensitySplit : Draws training rows from all slots and tests on all other rows.
    sklearn.model_selection.TimeSeriesSplit : Splits rows that are sorted by time.

    Notes
    -----
    A test row may have a user or service without a training row. Rows after the tested slot and
    before the window are in neither set.

    References
    ----------
    .. [1] S. Kumar, S. Chattopadhyay, C. Adak, "TPMCF: Temporal QoS Prediction Using Multi-Source
       Collaborative Features", IEEE Transactions on Network and Service Management 21(4), 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.model_selection import SlotSplit
    >>> X = np.array([[u, s, t] for u in range(5) for s in range(20) for t in range(6)])
    >>> splitter = SlotSplit(n_splits=2, window=3, density=0.1, random_state=0)
    >>> for train, test in splitter.split(X):
    ...     print(np.unique(X[train, 2]), len(train), np.unique(X[test, 2]), len(test))
    [2 3 4] 30 [4] 89
    [3 4 5] 30 [5] 92
    >>> splitter = SlotSplit(n_splits=2, window=3, forecast=True)
    >>> for train, test in splitter.split(X):
    ...     print(np.unique(X[train, 2]), len(train), np.unique(X[test, 2]), len(test))
    [1 2 3] 300 [4] 100
    [2 3 4] 300 [5] 100
    """

    def __init__(
        self,
        n_splits: int = 1,
        *,
        window: int = 8,
        density: float | None = None,
        forecast: bool = False,
        n_users: int | None = None,
        n_services: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        unit: Literal["cell", "row"] = "cell",
        time_step: str | datetime.timedelta | np.timedelta64 | None = None,
    ) -> None:
        self.n_splits = n_splits
        self.window = window
        self.density = density
        self.forecast = forecast
        self.n_users = n_users
        self.n_services = n_services
        self.random_state = random_state
        self.unit = unit
        self.time_step = time_step

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
            User ids in column 0, service ids in column 1, and times in column 2, in any order of
            rows. Ids may be of any kind; times are integers, which are slot numbers, or time
            stamps.

        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Not used, present for API consistency.

        groups : object, default=None
            Not used, present for API consistency.

        Yields
        ------
        train : ndarray of shape (n_train,), dtype intp
            Training rows, ascending.

        test : ndarray of shape (n_test,), dtype intp
            Test rows, ascending.

        Raises
        ------
        ValueError
            If a parameter is out of range, an id is missing or of a different kind than the others,
            the name of a column of X belongs to another position, X has too few slots, its times
            are neither integers nor time stamps, `time_step` does not match them, X contains more
            ids than `n_users` or `n_services`, or X has too few cells for `density`.
        """
        return with_plain_parameters(self)._split(X, y)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002
        """Return the number of splits.

        Parameters
        ----------
        X, y, groups : object, default=None
            Not used, present for API consistency.

        Returns
        -------
        int
        """
        return _n_splits(self)

    def _split(
        self, X: ArrayLike, y: ArrayLike | None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        self._check_parameters()
        columns = _read_columns(self, X, y, 3)
        ids = _ids_of(columns)
        slot_of_row = np.asarray(columns.times)
        slots = np.unique(slot_of_row)
        self._check_enough_slots(len(slots))
        n_cells = self.window * _count_cells(self, ids[:2])
        units = number_units(ids, self.unit)
        random_state = check_random_state(self.random_state)
        for tested in range(len(slots) - self.n_splits, len(slots)):
            stop = tested if self.forecast else tested + 1
            rows = np.flatnonzero(np.isin(slot_of_row, slots[stop - self.window : stop]))
            train = self._draw(rows, units[rows], n_cells, random_state)
            test = np.setdiff1d(np.flatnonzero(slot_of_row == slots[tested]), train)
            if len(test) == 0:
                time = columns.time_scale.name_of(int(slots[tested]))
                raise ValueError(
                    f"density={self.density} selected all rows of time slot {time} for training, "
                    "so that there is no test row; it must be smaller."
                )
            yield train, test

    def _check_parameters(self) -> None:
        _check_common(self)
        _check_count("window", self.window)
        for name in ("n_users", "n_services"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        if not isinstance(self.forecast, bool):
            raise ValueError(f"forecast must be True or False; got {self.forecast!r}.")
        if self.density is not None:
            _check_density(self.density)
        elif not self.forecast:
            raise ValueError(
                "density=None uses all rows of the window for training, including the tested slot, "
                "so that there is no test row. Give a float in (0, 1), or set forecast=True."
            )

    def _check_enough_slots(self, n_slots: int) -> None:
        largest = n_slots - self.n_splits + (not self.forecast)
        if self.window > largest:
            possible = (
                f"the largest possible window is {largest}"
                if largest > 0
                else f"n_splits must be at most {n_slots - self.forecast}"
            )
            raise ValueError(
                f"window={self.window} with n_splits={self.n_splits} and forecast={self.forecast} "
                f"needs {self.window - largest + n_slots} time slots, but column 2 of X holds "
                f"{n_slots}; {possible}."
            )

    def _draw(
        self,
        rows: NDArray[np.intp],
        units: NDArray[np.int64],
        n_cells: int,
        random_state: np.random.RandomState,
    ) -> NDArray[np.intp]:
        if self.density is None:
            return rows
        units = pd.factorize(units)[0]
        n_left = 0 if self.forecast else 1
        n_train = _train_size(self.density, n_cells, units, "the window", n_left)
        place = np.argsort(random_state.permutation(units.max() + 1))[units]
        return rows[place < n_train]


def number_units(ids: list[NDArray[Any]], unit: str) -> NDArray[np.int64]:
    """Return the number of each row's cell, in order of appearance, or of each row.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.model_selection import number_units
    >>> number_units([np.array([5, 5, 5]), np.array([1, 2, 1])], "cell")
    array([0, 1, 0])
    """
    if unit == "row":
        return np.arange(len(ids[0]))
    numbers = pd.factorize(ids[0])[0]
    for column in ids[1:]:
        codes, distinct = pd.factorize(column)
        numbers = pd.factorize(numbers * len(distinct) + codes)[0]
    return numbers


def _read_columns(
    splitter: DensitySplit | SlotSplit, X: ArrayLike, y: ArrayLike | None, n_columns: int
) -> Columns:
    """Read users, services and, if needed, time steps from the first columns of X."""
    frame = as_frame(X, 1, splitter)
    if frame.shape[1] < n_columns:
        raise ValueError(
            f"X must have at least {n_columns} columns, and the first {n_columns} must be "
            f"{_ID_NAMES[:n_columns]}; got the shape {frame.shape}. (DensitySplit needs no time "
            "step with n_time_steps=None.)"
        )
    check_names(frame.columns, n_columns)
    check_same_length(X=frame, y=y)
    columns = read_columns(frame, n_columns, ContextLayout([], []))
    if columns.times is None:
        return columns
    return columns.in_steps(learn_time_scale(columns.times, splitter.time_step))


def _ids_of(columns: Columns) -> list[NDArray[Any]]:
    """Return users, services and, if they were read, time steps."""
    ids = [columns.users, columns.services]
    return ids if columns.times is None else [*ids, columns.times]


def _count_cells(splitter: DensitySplit | SlotSplit, ids: list[NDArray[Any]]) -> int:
    """Return the number of cells: users times services, times steps if there are steps."""
    names = ["n_users", "n_services", "n_time_steps"][: len(ids)]
    return math.prod(
        _matrix_size(name, getattr(splitter, name), column)
        for name, column in zip(names, ids, strict=True)
    )


def _matrix_size(name: str, given: int | None, ids: NDArray[Any]) -> int:
    found = len(pd.unique(ids))
    if given is None:
        return found
    if found > given:
        raise ValueError(f"{name}={given}, but its column of X has {found} distinct values.")
    return given


def _train_size(
    density: float, n_cells: int, units: NDArray[np.int64], source: str, n_left: int
) -> int:
    """Return the number of training units; at least `n_left` units must remain."""
    n_units = int(units.max()) + 1
    what = "rows" if n_units == len(units) else "measured cells"
    n_train = round(density * n_cells)
    if n_train == 0:
        raise ValueError(
            f"density={density} of {n_cells} cells is less than one training row; "
            f"it must be at least {1 / n_cells:.4g}."
        )
    if n_train > n_units - n_left:
        kept = " and at least one must be left to test on" if n_left else ""
        raise ValueError(
            f"density={density} of {n_cells} cells needs {n_train} training {what}, but "
            f"{source} has {n_units} {what}{kept}; the largest possible density is "
            f"{_round_down((n_units - n_left) / n_cells)}."
        )
    return n_train


def _check_common(splitter: DensitySplit | SlotSplit) -> None:
    """Check the parameters of both splitters."""
    _n_splits(splitter)
    read_time_step(splitter.time_step)
    check_numbers({name: getattr(splitter, name) for name in parameter_names(type(splitter))})
    if not isinstance(splitter.unit, str) or splitter.unit not in ("cell", "row"):
        raise ValueError(f"unit must be 'cell' or 'row'; got {splitter.unit!r}.")
    try:
        check_random_state(splitter.random_state)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "random_state must be an int from 0 to 2**32 - 1, a RandomState instance or None; got "
            f"{splitter.random_state!r}."
        ) from error


def _n_splits(splitter: DensitySplit | SlotSplit) -> int:
    _check_count("n_splits", splitter.n_splits)
    return int(splitter.n_splits)


def _check_density(density: Any) -> None:
    if not (isinstance(density, Real) and 0 < float(density) < 1):
        raise ValueError(f"density must be a float in (0, 1); got {density!r}.")


def _check_count(name: str, value: Any) -> None:
    if not (isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1):
        raise ValueError(f"{name} must be an int >= 1; got {value!r}.")


def _round_down(value: float, digits: int = 4) -> float:
    """Round down to significant digits, so that the value in the message is possible."""
    scale = 10.0 ** (digits - 1 - math.floor(math.log10(value))) if value > 0 else 1.0
    return math.floor(value * scale) / scale
