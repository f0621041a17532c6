"""Ids as exact labels, without conversion to float."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_numeric_dtype

# Names of the first columns of X and of files.
ID_COLUMNS = ("user", "service", "time")
# pandas fills the hash table of an index at its first look-up. A second thread would see a partly
# filled table and miss known ids.
_LOOKUP = threading.Lock()
TIME_CLASSES = {
    "datetime": pd.Timestamp,
    "datetime64": pd.Timestamp,
    "timedelta": pd.Timedelta,
    "timedelta64": pd.Timedelta,
}


def read_ids(column: pd.Series, label: str) -> np.ndarray:
    """Read a column of ids of one kind, without conversion.

    Parameters
    ----------
    column : Series of length n
        Ids without missing values.
    label : str
        Name in errors.

    Returns
    -------
    ndarray of shape (n,)
        int64 if all ids are integers in its range; object of int if some are larger; float64, or
        object of numbers, if some have a fraction; otherwise object of one type.

    Raises
    ------
    ValueError
        If an id is missing, infinite, complex, or a float that may represent several integers, or
        if there are several kinds of ids.
    TypeError
        If ids cannot be hashed and sorted.
    """
    values = _values(column, label)
    if values.dtype.kind in "iub":
        return _integers(values)
    if values.dtype.kind == "f":
        return _floats(values, label)
    if values.dtype.kind == "c":
        raise _complex_error(label)
    return _objects(values, label)


def id_kind(ids: np.ndarray) -> str:
    """Return the kind of an id array: "number", "string", or the type of its elements."""
    if ids.dtype.kind in "iuf":
        return "number"
    names = {"str": "string", "str_": "string", "int": "number", "float": "number"}
    kinds = {type(value).__name__ for value in ids[:1]}
    return {names.get(kind, kind) for kind in kinds}.pop() if kinds else "none"


def make_index(ids: np.ndarray, name: Any = None) -> pd.Index:
    """Return ids as an Index with the same values."""
    return pd.Index(ids, dtype=ids.dtype, name=name, tupleize_cols=False)


def append_ids(index: pd.Index, ids: np.ndarray) -> pd.Index:
    """Append ids to an Index, without converting integers to floats."""
    if index.dtype == ids.dtype:
        return make_index(np.concatenate([index.to_numpy(), ids]))
    return make_index(np.concatenate([index.to_numpy().astype(object), ids.astype(object)]))


def find_ids(index: pd.Index, ids: np.ndarray) -> np.ndarray:
    """Return the position of each id in a unique Index, or -1.

    Parameters
    ----------
    index : Index
        Result of `make_index` or `append_ids`.
    ids : ndarray of shape (n,)
        Result of `read_ids`.

    Returns
    -------
    ndarray of int64 of shape (n,)
    """
    if index.dtype.kind == "i" and ids.dtype.kind == "f":
        # As floats, some large integers of the index would be equal.
        positions = np.full(len(ids), -1, dtype=np.int64)
        whole = ids == np.floor(ids)
        positions[whole] = find_ids(index, ids[whole].astype(np.int64))
        return positions
    with _LOOKUP:
        positions = index.get_indexer(make_index(ids))
    # int64, because positions of pandas are narrower on 32-bit platforms.
    return positions.astype(np.int64)


def _values(column: pd.Series, label: str) -> np.ndarray:
    """Return the values of a column as numbers or objects; raise if one is missing."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iubc":
        return column.to_numpy()
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(f"{label}: row {int(missing.argmax())} is NaN; every row needs an id.")
    if isinstance(dtype, pd.CategoricalDtype):
        return _values(pd.Series(dtype.categories.take(column.cat.codes.to_numpy())), label)
    if isinstance(dtype, pd.SparseDtype):
        return np.asarray(column)
    if is_numeric_dtype(dtype):
        values = column.to_numpy()
        # Decimals of Arrow are numbers for pandas.
        if values.dtype.kind != "f" or not np.isnan(values).any():
            return values
        raise ValueError(
            f"{label}: row {int(np.isnan(values).argmax())} is NaN; every row needs an id."
        )
    return column.to_numpy(dtype=object)


def _integers(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "u" and len(values) and values.max() > np.iinfo(np.int64).max:
        return values.astype(object)
    return values.astype(np.int64, copy=False)


def _floats(values: np.ndarray, label: str) -> np.ndarray:
    """Return integers as int64, other numbers as float64."""
    finite = np.isfinite(values)
    if not finite.all():
        row = int(finite.argmin())
        raise ValueError(f"{label}: row {row} is {values[row]} (inf); every row needs an id.")
    # Above this limit, several integers are the same float.
    limit = 2.0 ** min(np.finfo(values.dtype).nmant + 1, 53)
    if (ambiguous := np.abs(values) >= limit).any():
        row = int(ambiguous.argmax())
        raise ValueError(
            f"{label}: row {row} is the float {values[row]}; {values.dtype} does not tell integers "
            f"from {limit:.0f} on apart. Give large ids as integers or strings."
        )
    whole = values.astype(np.int64)
    if np.array_equal(whole, values):
        return whole
    exact = values.astype(np.float64)
    if not np.array_equal(exact, values):
        raise ValueError(
            f"{label}: ids of {values.dtype} that float64 does not hold; give strings."
        )
    return exact


def _objects(values: np.ndarray, label: str) -> np.ndarray:
    kind = infer_dtype(values, skipna=False)
    if kind in ("integer", "boolean"):
        return _large_integers(values)
    if kind == "floating":
        return _floats(values.astype(np.float64), label)
    if kind == "mixed-integer-float":
        return _mixed_numbers(values, label)
    if kind == "complex":
        raise _complex_error(label)
    if kind in ("string", "bytes"):
        return values
    if kind in TIME_CLASSES:
        values = _points_in_time(values, TIME_CLASSES[kind], label)
    _check_one_kind(values, label)
    return values


def _large_integers(values: np.ndarray) -> np.ndarray:
    """Return Python integers as int64, or unchanged if one is larger."""
    try:
        return values.astype(np.int64)
    except OverflowError:
        return np.array([int(value) for value in values], dtype=object)


def _mixed_numbers(values: np.ndarray, label: str) -> np.ndarray:
    """Return integers and floats as int64 if all are whole, otherwise as float64 if exact."""
    is_float = np.array([isinstance(value, float | np.floating) for value in values])
    floats = _floats(values[is_float].astype(np.float64), label)
    values = values.copy()
    values[is_float] = floats
    if floats.dtype.kind == "i":
        return _large_integers(values)
    is_small = all(abs(value) < 2**53 for value in values)
    return values.astype(np.float64) if is_small else values


def _points_in_time(values: np.ndarray, make: type, label: str) -> np.ndarray:
    """Return datetimes or durations of any class as those of pandas."""
    made = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        try:
            made[row] = make(value)
            is_same = not isinstance(value, np.generic) or made[row].to_numpy() == value
        except (ValueError, OverflowError):
            is_same = False
        if not is_same:
            raise ValueError(
                f"{label}: row {row} is {value!r}, which pandas cannot hold exactly; give strings."
            )
    return made


def _check_one_kind(values: np.ndarray, label: str) -> None:
    """Check that ids are of one type, hashable and sortable."""
    kinds = {kind.__name__ for kind in set(map(type, values))}
    if len(kinds) > 1:
        raise ValueError(
            f"{label} mixes ids of type {', '.join(sorted(kinds))}; ids must be of one "
            "sortable kind, such as all integers or all strings."
        )
    kind = type(values[0])
    try:
        if issubclass(kind, set | frozenset):
            raise TypeError("sets are ordered in part only")
        sorted(set(values))
    except TypeError as error:
        raise TypeError(
            f"{label}: argument must be a string or a number, not {kind.__name__} ({error}); ids "
            "must be labels that can be hashed and sorted."
        ) from error


def _complex_error(label: str) -> ValueError:
    return ValueError(f"{label}: complex data not supported; give integer or string ids.")
