"""Reading X: ids, times and context columns, with checks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import (
    infer_dtype,
    is_bool_dtype,
    is_complex_dtype,
    is_numeric_dtype,
    is_object_dtype,
)

from skqos._errors import about
from skqos._frames import to_frame
from skqos._ids import ID_COLUMNS, read_ids
from skqos._times import Times, TimeScale, read_times
from skqos._warnings import warn_user
from skqos.exceptions import UnusedColumnsWarning

# Names of id and time columns, in lower case and without spaces, dots, "_" or "-". Each may end
# with a word for an id, such as "id" or "index".
ROLE_NAMES = {
    "user": {"user", "users", "uid"},
    "service": {"service", "services", "webservice", "ws", "item", "items", "sid"},
    "time": {"time", "timestamp", "timestep", "timeslot", "timeslice", "slot", "date", "datetime"},
}
ID_WORDS = r"(id|ids|idx|index|no|number)?"
N_PLACES = len(ID_COLUMNS)
NUMBERS = (Real, Decimal, np.bool_)


@dataclass(frozen=True)
class ContextLayout:
    """Positions of the context columns in X, determined in `fit`.

    Attributes
    ----------
    user_columns, service_columns : list of int
        Positions in X.
    names : dict of int to object
        Names of these columns in `fit`, whatever their names in later X.
    """

    user_columns: list[int]
    service_columns: list[int]
    names: dict[int, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Columns:
    """X, split into columns but not encoded.

    Attributes
    ----------
    users, services : ndarray of shape (n,)
        Ids: int64, float64 or object (large integers, strings and others).
    times : ndarray of int64 of shape (n,), DatetimeIndex of length n, or None
        Times for temporal estimators: time steps, or time stamps without `time_scale`.
    frame : DataFrame with n rows
        X, which contains the context columns.
    layout : ContextLayout
        Positions of the context columns.
    time_scale : TimeScale or None
        Conversion with which `times` were computed; None for times as read.
    """

    users: np.ndarray
    services: np.ndarray
    times: Times | None
    frame: pd.DataFrame
    layout: ContextLayout
    time_scale: TimeScale | None = None

    @property
    def user_context(self) -> pd.DataFrame:
        """Context columns of the users, read on access."""
        return self._context(self.layout.user_columns)

    @property
    def service_context(self) -> pd.DataFrame:
        """Context columns of the services."""
        return self._context(self.layout.service_columns)

    def take(self, rows: np.ndarray) -> Columns:
        """Return the given rows only."""
        return Columns(
            users=self.users[rows],
            services=self.services[rows],
            times=None if self.times is None else self.times[rows],
            frame=self.frame.iloc[rows],
            layout=self.layout,
            time_scale=self.time_scale,
        )

    def in_steps(self, scale: TimeScale) -> Columns:
        """Return the rows with time steps in place of times as read."""
        return replace(self, times=scale.steps_of(self.times), time_scale=scale)

    def _context(self, positions: list[int]) -> pd.DataFrame:
        """Context columns under the names that they had in `fit`."""
        names = self.layout.names
        context = self.frame.iloc[:, positions]
        return context.set_axis([names[k] for k in positions], axis=1) if names else context


def as_frame(X: Any, n_id_columns: int, estimator: Any) -> pd.DataFrame:
    """Return X as a DataFrame without changing values; columns of an array are numbered.

    Raises
    ------
    ValueError
        If X is not 2-D, is empty, has masked entries, or has fewer than `n_id_columns` columns.
    TypeError
        If X is a lazy frame or sparse.
    """
    with about("X"):
        return _read_frame(X, n_id_columns, estimator)


def _read_frame(X: Any, n_id_columns: int, estimator: Any) -> pd.DataFrame:
    frame = named_columns(X)
    if frame is None:
        return as_columns(_read_array(X, n_id_columns, estimator))
    for n, what, minimum in (
        (frame.shape[1], "feature(s)", n_id_columns),
        (frame.shape[0], "sample(s)", 1),
    ):
        if n < minimum:
            raise ValueError(
                f"Found array with {n} {what} (shape={frame.shape}) while a minimum of {minimum} "
                f"is required by {type(estimator).__name__}."
            )
    for k, dtype in enumerate(frame.dtypes):
        if isinstance(dtype, np.dtype) and dtype.kind == "V":
            raise TypeError(
                f"X, column {k} ({frame.columns[k]}) is of {dtype}, which cannot be a label."
            )
    return frame


def locate_context(
    columns: pd.Index,
    n_id_columns: int,
    user_features: Sequence[str | int] | None,
    service_features: Sequence[str | int] | None,
) -> ContextLayout:
    """Determine the context columns, and warn of unused columns.

    Parameters
    ----------
    columns : Index
        Names of the columns of X.
    n_id_columns : {2, 3}
        Number of columns, from the first, that are ids and time.
    user_features, service_features : sequence of str or int, or None
        Context columns by name or position. None selects the columns named ``user_*`` and
        ``service_*``.

    Raises
    ------
    ValueError
        If the name of a column belongs to another position, or if a listed column does not exist,
        is an id, or is listed for both sides.
    TypeError
        If `user_features` or `service_features` contains something other than names and positions.
    """
    found: list[list[int]] = []
    listed: set[int] = set()
    left_out = set(range(n_id_columns, len(columns)))
    for parameter, prefix, features in (
        ("user_features", "user_", user_features),
        ("service_features", "service_", service_features),
    ):
        prefixed = _prefixed(columns, prefix, n_id_columns)
        if features is None:
            positions = prefixed
        else:
            positions = _listed_positions(columns, features, parameter, n_id_columns)
            listed.update(positions)
        # No warning for prefixed columns that an explicit list omits.
        left_out -= {*prefixed, *positions}
        found.append(positions)
    check_names(columns, n_id_columns, n_id_columns, listed)
    if both := set(found[0]) & set(found[1]):
        raise ValueError(
            f"Column {columns[min(both)]!r} is in both user_features and service_features; "
            "a context column describes one of the two."
        )
    if left_out:
        _warn_unused([columns[k] for k in sorted(left_out)], n_id_columns == 2 and 2 in left_out)
    names = {k: columns[k] for positions in found for k in positions}
    return ContextLayout(*found, names)


@lru_cache(maxsize=4096)
def role_of(name: Any) -> str | None:
    """Return the role of a column with a name such as "user", "UserID" or "ws_id", or None.

    Examples
    --------
    >>> from skqos.inputs import role_of
    >>> role_of("User ID"), role_of("ws_id"), role_of("timestamp"), role_of("user_country")
    ('user', 'service', 'time', None)
    """
    if not isinstance(name, str):
        return None
    word = re.sub(r"[\s_.-]", "", name).lower()
    for role, names in ROLE_NAMES.items():
        if re.fullmatch(f"({'|'.join(names)}){ID_WORDS}", word):
            return role
    return None


def check_names(
    columns: Iterable[Any],
    n_id_columns: int,
    n_places: int = N_PLACES,
    listed: Collection[int] = (),
) -> None:
    """Check that no name of a column of X belongs to another position.

    Parameters
    ----------
    columns : iterable
        Names of the columns of X.
    n_id_columns : int
        Number of columns, from the first, that are read as ids and time.
    n_places : int, default=3
        Number of columns that may have names of ids and time, also if the time is not read.
    listed : collection of int
        Columns that the user listed as context; their names are not checked.

    Raises
    ------
    ValueError
        If a column with a name of `ROLE_NAMES` is at another position.
    """
    for position, name in enumerate(columns):
        role = role_of(name)
        place = ID_COLUMNS[position] if position < n_places else None
        if role is None or role == place or position in listed:
            continue
        order = ", then ".join(ID_COLUMNS[: max(n_id_columns, 2)])
        if n_places > n_id_columns:
            order += "[, then time]"
        read_as = f"the {place}" if position < n_id_columns else "context"
        of_joiner = name == ID_COLUMNS[2] and position == 2
        advice = " ContextJoiner gives the third column of an array this name." if of_joiner else ""
        raise ValueError(
            f"X, column {position} is named {name!r}, which denotes {role}, but it is read as "
            f"{read_as}: the columns must be {order}, then context named user_* or service_*. "
            f"Reorder the columns of X, or rename or drop {name!r}.{advice}"
        )


def read_columns(frame: pd.DataFrame, n_id_columns: int, layout: ContextLayout) -> Columns:
    """Split X into ids, times and context columns, and check the ids.

    Raises
    ------
    ValueError
        If an id is missing or infinite, ids of one column are of several kinds, or a time is
        neither an integer nor a time stamp.
    """
    users, services = (read_id_column(frame, k) for k in range(2))
    return Columns(
        users=users,
        services=services,
        times=read_times(frame.iloc[:, 2]) if n_id_columns == 3 else None,
        frame=frame,
        layout=layout,
    )


def read_id_column(frame: pd.DataFrame, k: int) -> np.ndarray:
    """Return the ids of column `k` of X: users (0) or services (1).

    Raises
    ------
    ValueError
        If an id is missing or infinite, or ids are of several kinds.
    TypeError
        If ids cannot be hashed and sorted.
    """
    label = f"X, column {k} ({ID_COLUMNS[k]})"
    with about(label):
        return read_ids(frame.iloc[:, k], label)


def is_numeric(column: pd.Series) -> bool:
    """Return whether a context column is numeric; bool, strings, objects and categories are not.

    Raises
    ------
    TypeError
        If it holds complex numbers.
    """
    dtype = column.dtype
    if is_complex_dtype(dtype):
        raise _no_context(column.name, str(dtype))
    if not is_object_dtype(dtype):
        return is_numeric_dtype(dtype) and not is_bool_dtype(dtype)
    with about(f"Context column {column.name!r}"):
        kind = infer_dtype(column, skipna=True)
    if kind == "complex":
        raise _no_context(column.name, "complex numbers")
    return kind in ("integer", "floating", "mixed-integer-float", "decimal")


def read_numbers(column: pd.Series) -> np.ndarray:
    """Return a numeric context column as float64, with NaN for unknown values.

    Raises
    ------
    ValueError
        If it contains other values or inf.
    """
    if is_complex_dtype(column.dtype):
        raise _no_context(column.name, str(column.dtype))
    with about(f"Context column {column.name!r}"):
        if not is_numeric_dtype(column.dtype):
            column = _as_numbers(column)
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(numbers).any():
        raise ValueError(
            f"Context column {column.name!r} holds inf; context must be finite, or NaN where it "
            "is unknown."
        )
    return numbers


def _as_numbers(column: pd.Series) -> pd.Series:
    """Return numbers that are stored as objects as float64."""
    values = column.astype(object).where(column.notna(), np.nan)
    is_number = np.array([isinstance(v, NUMBERS) for v in values], dtype=bool)
    if not is_number.all():
        row = int(is_number.argmin())
        raise ValueError(
            f"Context column {column.name!r} held numbers in fit; row {row} of those read is "
            f"{values.iloc[row]!r}. Give a number, or NaN where it is unknown."
        )
    return values.astype(np.float64)


def _no_context(name: Any, what: str) -> TypeError:
    return TypeError(
        f"Context column {name!r} must be numeric or of dtype category, string, object or bool; "
        f"got {what}."
    )


def named_columns(X: Any) -> pd.DataFrame | None:
    """Return X as a DataFrame if it has named columns, else None; names must differ."""
    frame = to_frame(X, "X")
    if frame is not None and not frame.columns.is_unique:
        repeated = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"X has several columns named {repeated!r}; names must differ.")
    return frame


def stack_rows(rows: Sequence[Any]) -> np.ndarray:
    """Stack a list of rows; values of different types are not converted.

    numpy would convert numbers beside strings to strings, and integers beside floats to floats.
    """
    try:
        stacked = np.array(rows, dtype=object)
    except ValueError as error:
        raise ValueError(f"X is a list whose rows cannot be stacked: {error}.") from error
    if stacked.ndim == 1 and len({len(row) for row in rows if isinstance(row, list | tuple)}) > 1:
        raise ValueError("X is a list of rows of different lengths; they must have the same.")
    kinds = set(map(type, stacked.ravel()))
    if kinds <= {int} or kinds <= {float}:
        plain = np.asarray(rows)
        # numpy converts integers to floats if some need more than 64 bits.
        return stacked if kinds == {int} and plain.dtype != np.int64 else plain
    return stacked


def unmasked(X: Any) -> Any:
    """Return a masked array without its mask; raise ValueError for masked entries."""
    if not np.ma.isMaskedArray(X):
        return X
    mask = np.ma.getmaskarray(X)
    if mask.any():
        raise ValueError(
            f"X is a masked array, and its entry {tuple(map(int, np.argwhere(mask)[0]))} is "
            "masked. Leave such rows out, or fill masked context with NaN."
        )
    return np.ma.getdata(X)


def as_columns(X: np.ndarray) -> pd.DataFrame:
    """Return an array as a DataFrame with numbered columns, without conversion."""
    # The string dtypes of pandas would convert each value.
    return pd.DataFrame(X, dtype=object) if X.dtype.kind in "OUS" else pd.DataFrame(X)


def _read_array(X: Any, n_id_columns: int, estimator: Any) -> np.ndarray:
    """Check X as scikit-learn does, but without converting values in lists of rows."""
    # Imported here, because other functions are used without scikit-learn, for ONNX files.
    from sklearn.utils import check_array

    X = stack_rows(X) if isinstance(X, list | tuple) else unmasked(X)
    if isinstance(X, np.ndarray) and X.dtype.kind in "Mm":
        _check_time_unit(X)
    return check_array(
        X,
        dtype=None,
        ensure_all_finite=False,
        ensure_min_features=n_id_columns,
        estimator=estimator,
        input_name="X",
    )


def _check_time_unit(X: np.ndarray) -> None:
    unit = np.datetime_data(X.dtype)[0]
    if unit in ("ps", "fs", "as"):
        raise ValueError(f"X holds times in {unit}, which pandas would round; give ns or strings.")


def _prefixed(columns: pd.Index, prefix: str, n_id_columns: int) -> list[int]:
    return [
        k for k, name in enumerate(columns) if k >= n_id_columns and str(name).startswith(prefix)
    ]


def _listed_positions(
    columns: pd.Index, features: Sequence[str | int], parameter: str, n_id_columns: int
) -> list[int]:
    if isinstance(features, str | bytes):
        raise TypeError(
            f"{parameter} must be a list of names or positions of columns; got {features!r}."
        )
    with about(parameter):
        positions = [_position(columns, feature, parameter, n_id_columns) for feature in features]
    if len(set(positions)) < len(positions):
        raise ValueError(
            f"{parameter} lists a column twice: {[str(columns[k]) for k in positions]}."
        )
    return positions


def _position(columns: pd.Index, feature: str | int, parameter: str, n_id_columns: int) -> int:
    if isinstance(feature, str):
        return _named_position(columns, feature, parameter, n_id_columns)
    if not isinstance(feature, Integral) or isinstance(feature, bool):
        raise TypeError(
            f"{parameter}: {feature!r} is neither the name of a column (a str) nor its position "
            "(an int)."
        )
    return _check_position(columns, int(feature), parameter, n_id_columns)


def _named_position(columns: pd.Index, name: str, parameter: str, n_id_columns: int) -> int:
    if name not in columns:
        raise ValueError(
            f"{parameter}: column {name!r} is not in X; its columns are "
            f"{[str(column) for column in columns]}."
        )
    return _check_position(columns, list(columns).index(name), parameter, n_id_columns)


def _check_position(columns: pd.Index, k: int, parameter: str, n_id_columns: int) -> int:
    if not n_id_columns <= k < len(columns):
        raise ValueError(
            f"{parameter}: column {k} is not a context column of X, which has ids in columns "
            f"0 to {n_id_columns - 1} and {len(columns)} columns in total."
        )
    return k


def _warn_unused(names: list[Any], may_be_time: bool) -> None:
    about_time = " Only TPMCFRegressor uses a time, in column 2." if may_be_time else ""
    warn_user(
        f"X has columns that are not used: {names}. Context columns are those of a DataFrame "
        "named user_* or service_*, or those listed in user_features and service_features."
        f"{about_time}",
        UnusedColumnsWarning,
    )
