"""Checks and conversion of y and of weights."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils import check_array, column_or_1d

from skqos._errors import about
from skqos._warnings import warn_user

MAX_ROWS_SHOWN = 5
# Sums of as many values as fit into memory must be finite.
MAX_VALUE = 1e300
# Sums of weights, and of weighted squares, must be finite and not 0.
MIN_WEIGHT, MAX_WEIGHT = 1e-30, 1e30
# Common code for missing values.
MISSING_CODE = -1.0

_DURATION = "{name} holds durations; give their length as numbers, such as seconds: {name} / {one}."
_DATE = "{name} holds dates; give what was measured as numbers."
_MASKED = (
    "{name} is a masked array or holds masked values, which would be taken as measured; leave "
    "those rows out, or give {name}.astype(float).filled(np.nan) where NaN is taken."
)
_TEXT = "{name} holds text; give numbers, such as pd.to_numeric({name})."


def names_of_targets(y: Any) -> np.ndarray | None:
    """Return the names of the columns of y, if it is a DataFrame and all of them are strings.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos._target_checks import names_of_targets
    >>> names_of_targets(pd.DataFrame({"rt": [0.3], "tp": [21.0]})).tolist()
    ['rt', 'tp']
    """
    names = column_names(y)
    if not names or not all(isinstance(name, str) for name in names):
        return None
    return np.array(names, dtype=object)


def column_names(y: Any) -> list[Any] | None:
    """Return the names of the columns of y, or None if it is not a frame.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos._target_checks import column_names
    >>> column_names(pd.DataFrame([[0.3, 21.0]]))
    [0, 1]
    """
    # The attribute `columns` of a table of pyarrow has the values.
    names = getattr(y, "column_names", getattr(y, "columns", None))
    return None if names is None else list(names)


def in_target_order(values: Any, name: str, targets: Iterable[str] | None) -> Any:
    """Return the values of a mapping or a labelled Series in the order of the targets.

    Other values, and a Series with the labels 0, 1, ..., are returned as they are.

    Parameters
    ----------
    values : object
        Values of a parameter, such as one limit for each target.
    name : str
        Name of the parameter in errors.
    targets : iterable of str or None
        Names of the targets in `fit`, if it was given any.

    Raises
    ------
    ValueError
        If the labels are not the names of the targets.

    Examples
    --------
    >>> from skqos._target_checks import in_target_order
    >>> in_target_order({"tp": 20.0, "rt": 0.5}, "limit", ["rt", "tp"])
    [0.5, 20.0]
    """
    if isinstance(values, pd.Series):
        if values.index.equals(pd.RangeIndex(len(values))):
            return values
        labels, values = list(values.index), list(values)
    elif isinstance(values, Mapping):
        labels, values = list(values), list(values.values())
    else:
        return values
    if targets is None:
        raise ValueError(
            f"{name} has the labels {labels}, but the model was fitted without names of targets. "
            "Give a list in the order of the targets."
        )
    targets = list(targets)
    if len(labels) != len(targets) or {*labels} != {*targets}:
        raise ValueError(
            f"{name} has the labels {labels}, but the targets are {targets}. Give each target one "
            "value."
        )
    return [values[labels.index(target)] for target in targets]


def check_target_names(y: Any, fitted: np.ndarray | None) -> None:
    """Raise ValueError if y and y of `fit` have column names that differ.

    Parameters
    ----------
    y : array-like or DataFrame
        Targets.
    fitted : ndarray of str or None
        Names of the targets in `fit`, if it was given any.
    """
    names = names_of_targets(y)
    if names is None or fitted is None or list(names) == list(fitted):
        return
    raise ValueError(
        f"y has the columns {list(names)}, but in fit it had {list(fitted)}. Pass the same columns "
        "in the same order."
    )


def as_target(
    y: Any, name: str, *, allow_nan: bool, allow_nd: bool = False, estimator: Any = None
) -> np.ndarray:
    """Return y as float64 of one or two dimensions, or raise if it is not real numbers.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Integers, floats or booleans, also as objects; None and pandas' NA are NaN.
    name : str
        Name in errors.
    allow_nan : bool
        Whether NaN is allowed, for values that were not observed.
    allow_nd : bool, default=False
        Whether more than two dimensions are allowed.
    estimator : object, default=None
        Estimator that is named in errors.

    Returns
    -------
    ndarray of float64
        Values, at most 1e300 in magnitude.

    Raises
    ------
    ValueError
        If y is complex, masked, empty or ragged, contains infinity or a value beyond 1e300, or has
        more than two dimensions or NaN where this is not allowed.
    TypeError
        If y is sparse or contains durations, dates, text or other objects.
    """
    with about(name), np.errstate(over="ignore"):
        _check_kind(y, name)
        try:
            values = check_array(
                y,
                dtype=np.float64,
                ensure_2d=False,
                allow_nd=allow_nd,
                ensure_all_finite=False,
                input_name=name,
                estimator=estimator,
            )
        except (ValueError, TypeError, OverflowError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{name} cannot be taken as an array of real numbers: {error}") from error
    _check_finite(values, name, allow_nan, column_names(y))
    return values


def as_single_target(y: Any, *, estimator: Any) -> np.ndarray:
    """Return y as finite float64 of shape (n_samples,), with the errors of `as_target`."""
    values = as_target(y, "y", allow_nan=False, estimator=estimator)
    if values.ndim == 2 and values.shape[1] > 1:
        raise ValueError(
            f"y should be a 1d array, got an array of shape {values.shape} instead. "
            f"{type(estimator).__name__} takes one QoS parameter; SharpQoSRegressor takes several."
        )
    return column_or_1d(values, warn=True)


def as_weights(weights: Any, name: str) -> np.ndarray:
    """Return weights of rows as float64 of shape (n_samples,).

    Raises
    ------
    ValueError
        As in `as_target`, and if the weights are not 1-D, all are zero, or one is negative or too
        small or large for precise sums.
    TypeError
        As in `as_target`.
    """
    values = as_target(weights, name, allow_nan=False)
    if values.ndim > 1:
        raise ValueError(f"{name} must be 1-D; got an array of shape {values.shape}.")
    wrong = (values != 0) & ~((values >= MIN_WEIGHT) & (values <= MAX_WEIGHT))
    if wrong.any():
        raise ValueError(
            f"{name} must be 0 or from {MIN_WEIGHT:g} to {MAX_WEIGHT:g} in each row; "
            f"{_rows(wrong, values)}."
        )
    if not values.any():
        raise ValueError(f"{name} must have a positive sum: all weights are zero.")
    return values


def warn_of_missing_codes(y: np.ndarray) -> None:
    """Warn if -1 probably stands for missing values, as in the matrices of WS-DREAM.

    This is the case if there are non-integer values and no other value is negative.
    """
    for target, values in enumerate(y.reshape(len(y), -1).T):
        values = values[~np.isnan(values)]
        n_codes = np.count_nonzero(values == MISSING_CODE)
        if n_codes < 2 or n_codes < np.count_nonzero(values < 0):
            continue
        if (values != np.floor(values)).any():
            warn_user(
                f"y, target {target}: {n_codes:,} of {len(values):,} values are -1, and no other "
                "is negative. They are learnt as measured values. If -1 stands for a missing "
                "value, as in the files of WS-DREAM, remove these rows (or use NaN with "
                "SharpQoSRegressor, in a y of several columns).",
            )


def _check_kind(y: Any, name: str) -> None:
    if sparse.issparse(y):
        raise TypeError(f"Sparse data was passed for {name}, but dense data is required.")
    if isinstance(y, np.ma.MaskedArray) and np.ma.is_masked(y):
        raise ValueError(_MASKED.format(name=name))
    if isinstance(y, list | tuple) and any(map(_holds_masked, y)):
        raise ValueError(_MASKED.format(name=name))
    for column in _columns(y, name):
        _check_kind_of_column(column, name)


def _columns(y: Any, name: str) -> list[np.ndarray]:
    """Yield arrays of one dtype each; the columns of a frame may differ."""
    if isinstance(y, pd.DataFrame):
        return [np.asarray(y.iloc[:, k]) for k in range(y.shape[1])]
    try:
        return [np.asarray(y)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} cannot be taken as an array: {error}") from error


def _check_kind_of_column(values: np.ndarray, name: str) -> None:
    if values.dtype.kind == "m":
        raise TypeError(_DURATION.format(name=name, one="np.timedelta64(1, 's')"))
    if values.dtype.kind == "M":
        raise TypeError(_DATE.format(name=name))
    if values.dtype.kind in "US":
        raise TypeError(_TEXT.format(name=name))
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} holds complex numbers.")
    if values.dtype.kind == "V":
        raise TypeError(f"{name} is a structured array; give one of numbers.")
    if values.dtype.kind == "O":
        for kind in set(map(type, values.ravel())):
            _check_kind_of_object(kind, name)


def _holds_masked(value: Any) -> bool:
    is_row = isinstance(value, list | tuple)
    return value is np.ma.masked or (is_row and any(map(_holds_masked, value)))


def _check_kind_of_object(kind: type, name: str) -> None:
    if issubclass(kind, np.ma.MaskedArray):
        raise ValueError(_MASKED.format(name=name))
    if issubclass(kind, datetime.timedelta | np.timedelta64):
        raise TypeError(_DURATION.format(name=name, one="pd.Timedelta('1s')"))
    if issubclass(kind, datetime.date | datetime.time | np.datetime64 | pd.Period):
        raise TypeError(_DATE.format(name=name))
    if issubclass(kind, str | bytes):
        raise TypeError(_TEXT.format(name=name))
    if issubclass(kind, complex | np.complexfloating):
        raise ValueError(f"Complex data not supported: {name} holds complex numbers.")
    is_missing = kind in (type(None), type(pd.NA))
    if not is_missing and not hasattr(kind, "__float__"):
        raise TypeError(f"{name} holds objects of type {kind.__name__}; give numbers.")


def _check_finite(values: np.ndarray, name: str, allow_nan: bool, names: Any) -> None:
    """Raise ValueError for infinity or NaN, with the message of scikit-learn and the rows."""
    for k, column in enumerate(values.reshape(len(values), -1).T):
        label = name
        if values.ndim == 2:
            label = f"{name}, column {k} ({k if names is None else names[k]})"
        infinite, missing = np.abs(column) > MAX_VALUE, np.isnan(column)
        if infinite.any():
            advice = ", or NaN for what was not observed" if allow_nan else ""
            raise ValueError(
                f"Input {name} contains infinity or a value too large for dtype('float64'). "
                f"{label}: {_rows(infinite, column)}; give a finite value, at most {MAX_VALUE:g} "
                f"in size{advice}."
            )
        if missing.any() and not allow_nan:
            advice = " Only SharpQoSRegressor takes NaN, in a y of several columns."
            raise ValueError(
                f"Input {name} contains NaN. {label}: {_rows(missing, column)}; leave out what was "
                f"not observed.{advice if name == 'y' else ''}"
            )


def _rows(wrong: np.ndarray, values: np.ndarray) -> str:
    """Return a text with the first invalid rows."""
    found = np.flatnonzero(wrong)
    text = f"row {found[0]} is {values[found[0]]}"
    if len(found) > 1:
        more = ", ".join(map(str, found[1:MAX_ROWS_SHOWN]))
        text += f", as are rows {more}{', ...' if len(found) > MAX_ROWS_SHOWN else ''}"
        text += f" ({len(found):,} in all)"
    return text
