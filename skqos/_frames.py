"""Conversion of frames of any library to pandas DataFrames, without changing values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

# Methods that compute the values of lazy frames.
COLLECTING = ("collect", "compute", "execute", "toPandas")
INTEGERS = [f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
# pandas dtypes of integers and booleans with missing values.
NULLABLE = {**dict.fromkeys(INTEGERS, pd.arrays.IntegerArray), "Boolean": pd.arrays.BooleanArray}
ARROW_TYPES = {name.lower(): pd.api.types.pandas_dtype(name) for name in INTEGERS}
ARROW_TYPES["bool"] = pd.BooleanDtype()


def to_frame(table: Any, name: str) -> pd.DataFrame | None:
    """Return a frame as a DataFrame, or None if it is not a frame.

    Takes the frames of pandas, polars, pyarrow and narwhals, and those with a ``to_pandas`` or an
    interchange protocol (``__dataframe__``). None of these packages needs to be installed.

    Parameters
    ----------
    table : object
        Any object.
    name : str
        Name in errors.

    Returns
    -------
    DataFrame or None
        The same object for a pandas frame; otherwise a new one with NaN or None for missing values.

    Raises
    ------
    TypeError
        If the frame is lazy.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos._frames import to_frame
    >>> frame = pd.DataFrame({"user": [1]})
    >>> to_frame(frame, "X") is frame
    True
    >>> to_frame([[1, 2]], "X") is None
    True
    """
    if isinstance(table, pd.DataFrame):
        return table
    kind = type(table)
    _check_not_lazy(kind, name)
    package = kind.__module__.partition(".")[0]
    if package == "narwhals" and hasattr(kind, "to_native"):
        return to_frame(table.to_native(), name)
    if package == "polars" and hasattr(kind, "get_columns"):
        return _join([(part.name, _from_polars(part)) for part in table.get_columns()], len(table))
    if package == "pyarrow" and hasattr(kind, "column_names"):
        # Metadata of a pandas index would hide columns.
        return table.to_pandas(
            ignore_metadata=True, types_mapper=lambda kind: ARROW_TYPES.get(str(kind))
        )
    if hasattr(kind, "to_pandas") and hasattr(kind, "columns"):
        return table.to_pandas()
    if hasattr(kind, "__dataframe__"):
        return pd.api.interchange.from_dataframe(table)
    return None


def _check_not_lazy(kind: type, name: str) -> None:
    if not hasattr(kind, "columns"):
        return
    for method in COLLECTING:
        if hasattr(kind, method):
            raise TypeError(
                f"{name} is a lazy frame ({kind.__module__.partition('.')[0]} {kind.__name__}), "
                f"whose values are not computed yet; give {name}.{method}()."
            )


def _from_polars(column: Any) -> Any:
    """Return the values of a polars column, without pyarrow or conversion of integers to float."""
    dtype = column.dtype
    kind = type(dtype).__name__ if not isinstance(dtype, type) else dtype.__name__
    if kind in ("Categorical", "Enum"):
        return _from_polars_categories(column)
    if kind in ("Datetime", "Duration"):
        values = pd.Series(column.to_numpy())
        zone = getattr(dtype, "time_zone", None)
        return values.dt.tz_localize("UTC").dt.tz_convert(zone) if zone else values
    if dtype.is_float():
        return column.to_numpy()
    if kind in NULLABLE:
        missing = column.is_null().to_numpy()
        values = column.fill_null(False if kind == "Boolean" else 0).to_numpy()
        return NULLABLE[kind](values, missing) if missing.any() else values
    return pd.Series(column.to_list(), dtype=object)


def _from_polars_categories(column: Any) -> pd.Categorical:
    """Convert codes and each label once; polars may share categories between frames."""
    present = column.is_not_null().to_numpy()
    codes = np.full(len(column), -1)
    used, first, codes[present] = np.unique(
        column.drop_nulls().to_physical().to_numpy(), return_index=True, return_inverse=True
    )
    labels = column.drop_nulls().gather(first).to_list() if len(used) else []
    return pd.Categorical.from_codes(codes, categories=pd.Index(labels, dtype=object))


def _join(columns: list[tuple[str, Any]], n_rows: int) -> pd.DataFrame:
    frame = pd.DataFrame(dict(enumerate(values for _, values in columns)), index=range(n_rows))
    return frame.set_axis([name for name, _ in columns], axis=1)
