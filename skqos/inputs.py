"""Reading X: which columns are ids, which are context, and what is wrong with them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_array

from skqos.exceptions import UnusedColumnsWarning

ID_COLUMNS = ("user", "service", "time")


@dataclass(frozen=True)
class Columns:
    """X taken apart, nothing encoded yet.

    Attributes
    ----------
    users, services : ndarray of shape (n,)
        Ids: int64, float64 or object (strings).
    times : ndarray of int64 of shape (n,) or None
        Time steps, for temporal estimators.
    user_context, service_context : DataFrame with n rows
        Context columns as given, none to many.
    """

    users: np.ndarray
    services: np.ndarray
    times: np.ndarray | None
    user_context: pd.DataFrame
    service_context: pd.DataFrame

    def take(self, rows: np.ndarray) -> Columns:
        """Return the given rows only."""
        return Columns(
            users=self.users[rows],
            services=self.services[rows],
            times=None if self.times is None else self.times[rows],
            user_context=self.user_context.iloc[rows],
            service_context=self.service_context.iloc[rows],
        )


@dataclass(frozen=True)
class ContextLayout:
    """Positions of the context columns in X, decided in `fit`."""

    user_columns: list[int]
    service_columns: list[int]


def as_frame(X: Any, n_id_columns: int, estimator: Any) -> pd.DataFrame:
    """Take X as a DataFrame without changing any value; an array's columns are numbered.

    Raises
    ------
    ValueError
        If X is not 2-D, is empty, or has fewer than `n_id_columns` columns.
    """
    if not isinstance(X, pd.DataFrame):
        X = check_array(
            X,
            dtype=None,
            ensure_all_finite=False,
            ensure_min_features=n_id_columns,
            estimator=estimator,
            input_name="X",
        )
        return pd.DataFrame(X)
    for n, what, minimum in (
        (X.shape[1], "feature(s)", n_id_columns),
        (X.shape[0], "sample(s)", 1),
    ):
        if n < minimum:
            raise ValueError(
                f"Found array with {n} {what} (shape={X.shape}) while a minimum of {minimum} is "
                f"required by {type(estimator).__name__}."
            )
    return X


def locate_context(
    columns: pd.Index,
    n_id_columns: int,
    user_features: Sequence[str | int] | None,
    service_features: Sequence[str | int] | None,
) -> ContextLayout:
    """Decide which columns are context; warn of those that are nothing.

    Parameters
    ----------
    columns : Index
        Names of the columns of X.
    n_id_columns : {2, 3}
        How many columns, from the first, are ids and time.
    user_features, service_features : sequence of str or int, or None
        Context columns by name or position; None takes the columns named ``user_*`` and
        ``service_*``.

    Raises
    ------
    ValueError
        If the id columns are swapped, or a listed column does not exist, is an id, or is listed
        for both sides.
    """
    check_not_swapped(columns)
    found = []
    left_out = set(range(n_id_columns, len(columns)))
    for parameter, prefix, features in (
        ("user_features", "user_", user_features),
        ("service_features", "service_", service_features),
    ):
        prefixed = _prefixed(columns, prefix, n_id_columns)
        positions = (
            prefixed
            if features is None
            else [_position(columns, feature, parameter, n_id_columns) for feature in features]
        )
        if len(set(positions)) < len(positions):
            raise ValueError(
                f"{parameter} lists a column twice: {[str(columns[k]) for k in positions]}."
            )
        # A list that leaves a prefixed column out does so on purpose: no warning for it.
        left_out -= {*prefixed, *positions}
        found.append(positions)
    if both := set(found[0]) & set(found[1]):
        raise ValueError(
            f"Column {columns[min(both)]!r} is in both user_features and service_features; "
            "a context column describes one of the two."
        )
    if left_out:
        _warn_unused([columns[k] for k in sorted(left_out)])
    return ContextLayout(*found)


def check_not_swapped(columns: pd.Index) -> None:
    """Raise ValueError if the first two columns are named as service and user."""
    first, second = (_entity_of(name) for name in columns[:2])
    if first == "service" and second == "user":
        raise ValueError(
            f"The first two columns of X are named {columns[0]!r} and {columns[1]!r}: they must "
            "be user, then service. Swap them."
        )


def read_columns(frame: pd.DataFrame, n_id_columns: int, layout: ContextLayout) -> Columns:
    """Take ids and context columns out of X and check the ids.

    Raises
    ------
    ValueError
        If an id is missing or infinite, ids of one column are of several kinds, or a time step
        is not an integer.
    """
    users, services = (_read_id_column(frame, k) for k in range(2))
    return Columns(
        users=users,
        services=services,
        times=read_time_steps(frame) if n_id_columns == 3 else None,
        user_context=_context(frame, layout.user_columns),
        service_context=_context(frame, layout.service_columns),
    )


def read_time_steps(frame: pd.DataFrame) -> np.ndarray:
    """Take the time steps of X, its third column, as int64; raise ValueError if they are not."""
    values = _read_id_column(frame, 2)
    if values.dtype.kind != "i":
        raise ValueError(
            f"X, column 2 (time) must hold integer-valued time steps; found {values[0]!r}"
            if values.dtype == object
            else "X, column 2 (time) must hold integer-valued time steps; found "
            f"{values[values != np.floor(values)][0]}."
        )
    # A copy: torch does not take what must not be written to.
    return values.copy()


def id_kind(ids: np.ndarray) -> str:
    """Name the kind of an id array: "number", "string", or its elements' type."""
    if ids.dtype.kind in "iuf":
        return "number"
    kinds = {type(value).__name__ for value in ids[:1]}
    return {"str": "string"}.get(*kinds, *kinds)


def is_numeric(column: pd.Series) -> bool:
    """Whether a context column is numeric; bool, strings, objects and categories are not."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _context(frame: pd.DataFrame, columns: list[int]) -> pd.DataFrame:
    """Context columns, each of the type of its values."""
    context = frame.iloc[:, columns].infer_objects()
    if not context.columns.is_unique:
        repeated = context.columns[context.columns.duplicated()][0]
        raise ValueError(f"X has several context columns named {repeated!r}; names must differ.")
    return context


def _entity_of(name: Any) -> str | None:
    """Which entity a column name such as "user", "UserID" or "service_id" stands for."""
    match = re.fullmatch(r"(user|service)[_ ]?(id|index|idx)?", str(name).strip().lower())
    return match.group(1) if match else None


def _read_id_column(frame: pd.DataFrame, k: int) -> np.ndarray:
    """Ids as int64 where they are whole numbers, float64 for other numbers, else object."""
    column, label = frame.iloc[:, k], f"column {k} ({ID_COLUMNS[k]})"
    if column.isna().any():
        row = int(np.flatnonzero(column.isna())[0])
        raise ValueError(f"X, {label}: row {row} is NaN; every row needs an id.")
    values = column.infer_objects() if column.dtype == object else column
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = pd.Series(np.asarray(values))
    if pd.api.types.is_numeric_dtype(values):
        return _read_numbers(values.to_numpy(), label)
    values = values.to_numpy(dtype=object)
    _check_one_kind(values, label)
    return values


def _read_numbers(values: np.ndarray, label: str) -> np.ndarray:
    if values.dtype.kind == "c":
        raise ValueError(f"X, {label}: complex data not supported; give integer or string ids.")
    if values.dtype.kind in "iub" and not (values > np.iinfo(np.int64).max).any():
        return values.astype(np.int64, copy=False)
    values = values.astype(np.float64, copy=False)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"X, {label}: row {row} is {values[row]} (inf); every row needs an id.")
    with np.errstate(invalid="ignore"):  # floats beyond int64 stay floats
        whole = values.astype(np.int64)
    return whole if np.array_equal(whole, values) else values


def _check_one_kind(values: np.ndarray, label: str) -> None:
    kinds = {kind.__name__ for kind in set(map(type, values))}
    if len(kinds) > 1:
        raise ValueError(
            f"X, {label} mixes ids of type {', '.join(sorted(kinds))}; ids must be of one "
            "sortable kind, such as all integers or all strings."
        )
    if not hasattr(values[0], "__lt__") or isinstance(values[0], dict | list | set):
        raise TypeError(
            f"X, {label}: argument must be a string or a number, not {kinds.pop()}; ids must be "
            "sortable labels."
        )


def _prefixed(columns: pd.Index, prefix: str, n_id_columns: int) -> list[int]:
    return [
        k for k, name in enumerate(columns) if k >= n_id_columns and str(name).startswith(prefix)
    ]


def _position(columns: pd.Index, feature: str | int, parameter: str, n_id_columns: int) -> int:
    if isinstance(feature, str):
        found = np.flatnonzero(columns == feature)
        if len(found) == 0:
            raise ValueError(
                f"{parameter}: column {feature!r} is not in X; its columns are "
                f"{[str(name) for name in columns]}."
            )
        feature = found[0]
    if not n_id_columns <= feature < len(columns):
        raise ValueError(
            f"{parameter}: column {feature} is no context column of X, which has ids in columns "
            f"0 to {n_id_columns - 1} and {len(columns)} columns in all."
        )
    return int(feature)


def _warn_unused(names: list[Any]) -> None:
    warnings.warn(
        f"X has columns that are not used: {names}. Context columns are those of a DataFrame "
        "named user_* or service_*, or those listed in user_features and service_features.",
        UnusedColumnsWarning,
        stacklevel=5,
    )
