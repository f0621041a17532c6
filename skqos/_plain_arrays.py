"""Conversion of arrays, columns and labels to plain data and back."""

from __future__ import annotations

import datetime
import math
import re
import uuid
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

# numpy dtypes that torch supports; others are stored as bytes.
TORCH_KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8")
DTYPE = re.compile(
    r"[<>|=]?([biufcSU]\d{1,9}|[mM]8(\[\d{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
FLOAT_SIZES = {"f": (2, 4, 8), "c": (8, 16)}
MASKED = {
    "b": pd.arrays.BooleanArray,
    "i": pd.arrays.IntegerArray,
    "u": pd.arrays.IntegerArray,
    "f": pd.arrays.FloatingArray,
}
MAX_CHARACTER = 0x10FFFF

Write = Callable[[Any, str], Any]
Read = Callable[[Any], Any]


# --- Labels: what a cell of an object array, or an id, may be beside numbers and strings ---------


def _zone_name(zone: datetime.tzinfo | None) -> str | int | None:
    """Return the name of a time zone, or its offset from UTC in seconds."""
    if zone is None:
        return None
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    offset = None if name else zone.utcoffset(None)
    if name is None and offset is None:
        raise TypeError(f"the time zone {zone!r} has no name")
    return name if offset is None else int(offset.total_seconds())


def _zone(name: str | int | None) -> datetime.tzinfo | None:
    if name is None:
        return None
    if isinstance(name, str):
        # Checks that the name does not refer to another file.
        return zoneinfo.ZoneInfo(name)
    return datetime.timezone(datetime.timedelta(seconds=name))


LABELS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "missing": (type(pd.NA), lambda _: None, lambda _: pd.NA),
    "not a time": (type(pd.NaT), lambda _: None, lambda _: pd.NaT),
    "timestamp": (
        pd.Timestamp,
        lambda stamp: (int(stamp.asm8.view("i8")), stamp.unit, _zone_name(stamp.tz)),
        lambda parts: _timestamp(*parts),
    ),
    "timedelta": (
        pd.Timedelta,
        lambda delta: (int(delta.asm8.view("i8")), delta.unit),
        lambda parts: pd.Timedelta(np.timedelta64(*parts)),
    ),
    "datetime": (
        datetime.datetime,
        lambda moment: (moment.replace(tzinfo=None).isoformat(), _zone_name(moment.tzinfo)),
        lambda parts: datetime.datetime.fromisoformat(parts[0]).replace(tzinfo=_zone(parts[1])),
    ),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "duration": (
        datetime.timedelta,
        lambda delta: (delta.days, delta.seconds, delta.microseconds),
        lambda parts: datetime.timedelta(*parts),
    ),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "uuid": (uuid.UUID, str, uuid.UUID),
    "decimal": (Decimal, str, Decimal),
}
LABEL_NAMES = {kind: name for name, (kind, _, _) in LABELS.items()}


def _timestamp(value: int, unit: str, zone: str | int | None) -> pd.Timestamp:
    stamp = pd.Timestamp(np.datetime64(value, unit))
    return stamp if zone is None else stamp.tz_localize("UTC").tz_convert(_zone(zone))


def write_label(value: Any) -> dict[str, Any]:
    """Write a label of a kind in `LABEL_NAMES`."""
    name = LABEL_NAMES[type(value)]
    return {"type": "label", "kind": name, "value": LABELS[name][1](value)}


def read_label(node: dict[str, Any]) -> Any:
    """Read what `write_label` wrote."""
    kind, _, read = LABELS[node["kind"]]
    value = read(node["value"])
    if type(value) is not kind:
        raise ValueError("a label is of another kind than it claims")
    return value


# --- Arrays ---------------------------------------------------------------------------------------


def check_shape(shape: Any, n_values: int) -> tuple[int, ...]:
    """Return a shape if it matches the number of values; raise ValueError otherwise."""
    sizes = tuple(shape)
    is_whole = all(type(size) is int and size >= 0 for size in sizes)
    # Also without values, an axis must not be long, because loops over it would not end.
    if not is_whole or math.prod(sizes) != n_values or sum(sizes) > 2**20 + n_values:
        raise ValueError("an array claims another size than it has")
    return sizes


def write_array(value: np.ndarray, path: str, write: Write) -> dict[str, Any]:
    """Write an array of any numpy dtype except structures and extended floats."""
    dtype = value.dtype
    if dtype.kind == "O":
        cells = [write(part, f"{path}[{k}]") for k, part in enumerate(value.reshape(-1))]
        return {"type": "objects", "items": cells, "shape": value.shape}
    if not _is_stored(dtype.str):
        raise TypeError(f"{path} is an array of dtype {dtype}, which model files do not hold.")
    # With the same memory order, so that sums are rounded in the same way.
    copy = np.array(value, order="K")
    if dtype.isnative and dtype.str[1:] in TORCH_KINDS:
        return {"type": "array", "dtype": dtype.str, "values": torch.from_numpy(copy)}
    values = np.frombuffer(bytearray(copy.tobytes()), np.uint8) if copy.nbytes else _NO_BYTES
    return {
        "type": "array",
        "dtype": dtype.str,
        "values": torch.from_numpy(values),
        "shape": value.shape,
    }


_NO_BYTES = np.empty(0, dtype=np.uint8)


def read_array(node: dict[str, Any]) -> np.ndarray:
    """Read an array that `write_array` wrote."""
    name, values = node["dtype"], node["values"]
    if not isinstance(values, Tensor) or not _is_stored(name):
        raise ValueError(f"an array is of dtype {name!r:.40}")
    dtype, values = np.dtype(name), values.numpy()
    if "shape" not in node:
        if values.dtype != dtype:
            raise ValueError("an array is of another dtype than it claims")
        check_shape(values.shape, values.size)
        return values
    if values.dtype != np.uint8 or values.ndim != 1 or not dtype.itemsize:
        raise ValueError("an array is not stored as bytes")
    if dtype.kind == "U" and (values.view(dtype.str[:1] + "u4") > MAX_CHARACTER).any():
        raise ValueError("a string has characters that do not exist")
    return values.view(dtype).reshape(check_shape(node["shape"], values.size // dtype.itemsize))


def read_objects(node: dict[str, Any], read: Read) -> np.ndarray:
    """Read an array of objects."""
    items = [read(part) for part in node["items"]]
    values = np.fromiter(items, dtype=object, count=len(items))
    return values.reshape(check_shape(node["shape"], len(items)))


def _is_stored(name: Any) -> bool:
    """Return whether files support arrays of a dtype, given by name."""
    if not isinstance(name, str) or not DTYPE.fullmatch(name):
        return False
    dtype = np.dtype(name)
    return dtype.itemsize in FLOAT_SIZES.get(dtype.kind, (dtype.itemsize,))


# --- Columns of tables, and indexes ---------------------------------------------------------------


def write_column(values: pd.Series | pd.Index, path: str, write: Write) -> dict[str, Any]:
    """Write the values of a column or index, of any dtype except periods and intervals."""
    dtype = values.dtype
    if isinstance(dtype, pd.SparseDtype):
        return write_column(values.astype(dtype.subtype), path, write)
    if isinstance(dtype, np.dtype):
        return write_array(values.to_numpy(), path, write)
    if isinstance(dtype, pd.CategoricalDtype):
        array = values.array
        return {
            "type": "categorical",
            "codes": write_array(array.codes, path, write),
            "categories": write_index(array.categories, path, write),
            "ordered": bool(array.ordered),
        }
    if isinstance(dtype, pd.DatetimeTZDtype):
        stamps = values.dt if isinstance(values, pd.Series) else values
        return {
            "type": "zoned",
            "values": write_array(stamps.tz_convert(None).to_numpy(), path, write),
            "zone": _zone_name(dtype.tz),
        }
    if isinstance(dtype, pd.StringDtype):
        is_nan = dtype.na_value is np.nan
        kind = {"type": "strings", "storage": dtype.storage, "missing": "NaN" if is_nan else "NA"}
    elif isinstance(dtype, pd.ArrowDtype):
        kind = {"type": "arrow", "dtype": str(dtype.pyarrow_dtype)}
    elif isinstance(values.array, tuple(MASKED.values())):
        numbers = values.array.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        return {
            "type": "masked",
            "values": write_array(numbers, path, write),
            "mask": write_array(values.array.isna(), path, write),
        }
    else:
        raise TypeError(f"{path} is of dtype {dtype}, which model files do not hold.")
    items = [
        None if is_missing else write(part, f"{path}[{k}]")
        for k, (part, is_missing) in enumerate(zip(values.array, values.isna(), strict=True))
    ]
    return {**kind, "items": items}


def read_column(node: dict[str, Any], read: Read) -> Any:
    """Read values that `write_column` wrote, as an array of numpy or pandas."""
    if node["type"] in ("array", "objects"):
        values = read(node)
        if values.ndim != 1:
            raise ValueError("a column is no list")
        return values
    return COLUMN_READERS[node["type"]](node, read)


def _categorical(node: dict[str, Any], read: Read) -> pd.Categorical:
    dtype = pd.CategoricalDtype(read_index(node["categories"], read), ordered=node["ordered"])
    return pd.Categorical.from_codes(read_array(node["codes"]), dtype=dtype)


def _zoned(node: dict[str, Any], read: Read) -> Any:  # noqa: ARG001  (as the other readers)
    stamps = pd.DatetimeIndex(read_array(node["values"]))
    return stamps.tz_localize("UTC").tz_convert(_zone(node["zone"])).array


def _masked(node: dict[str, Any], read: Read) -> Any:  # noqa: ARG001  (as the other readers)
    values = read_array(node["values"])
    return MASKED[values.dtype.kind](values, read_array(node["mask"]))


def _strings(node: dict[str, Any], read: Read) -> Any:
    """Read strings as the installed pandas stores them."""
    missing = {"NaN": np.nan, "NA": pd.NA}[node["missing"]]
    items = [missing if part is None else read(part) for part in node["items"]]
    if not all(isinstance(part, str) or part is missing for part in items):
        raise ValueError("a column of strings holds something else")
    for dtype in _string_dtypes(node["storage"], missing):
        try:
            return pd.array(items, dtype=dtype())
        except (ImportError, TypeError, ValueError):
            # Another version of pandas, or no pyarrow.
            continue
    return np.fromiter(items, dtype=object, count=len(items))


def _string_dtypes(storage: str, missing: Any) -> list[Callable[[], pd.StringDtype]]:
    storages = [name for name in ("pyarrow", "python") if name == storage] + ["python"]
    dtypes = [lambda name=name: pd.StringDtype(name, na_value=missing) for name in storages]
    if missing is pd.NA:
        dtypes += [lambda name=name: pd.StringDtype(name) for name in storages]
    return dtypes


def _arrow(node: dict[str, Any], read: Read) -> Any:
    """Read a pyarrow column, as objects if its dtype is not available."""
    items = [pd.NA if part is None else read(part) for part in node["items"]]
    try:
        import pyarrow as pa

        dtype = pd.ArrowDtype(pa.type_for_alias(node["dtype"]))
        return pd.array(items, dtype=dtype)
    except (ImportError, TypeError, ValueError):
        return np.fromiter(items, dtype=object, count=len(items))


COLUMN_READERS = {
    "categorical": _categorical,
    "zoned": _zoned,
    "masked": _masked,
    "strings": _strings,
    "arrow": _arrow,
}


def write_index(value: pd.Index, path: str, write: Write) -> dict[str, Any]:
    """Write an index."""
    if isinstance(value, pd.MultiIndex):
        levels = [write_index(value.get_level_values(k), path, write) for k in range(value.nlevels)]
        return {"type": "levels", "levels": levels}
    return {
        "type": "index",
        "values": write_column(value, path, write),
        "name": write(value.name, path),
    }


def read_index(node: dict[str, Any], read: Read) -> pd.Index:
    """Read an index that `write_index` wrote."""
    if node["type"] == "levels":
        return pd.MultiIndex.from_arrays([read_index(level, read) for level in node["levels"]])
    values = read_column(node["values"], read)
    return pd.Index(values, dtype=values.dtype, name=read(node["name"]))


def write_series(value: pd.Series, path: str, write: Write) -> dict[str, Any]:
    """Write a column with its index and name."""
    return {
        "type": "series",
        "values": write_column(value, path, write),
        "index": write_index(value.index, path, write),
        "name": write(value.name, path),
    }


def read_series(node: dict[str, Any], read: Read) -> pd.Series:
    """Read what `write_series` wrote."""
    index = read_index(node["index"], read)
    values = read_column(node["values"], read)
    return pd.Series(values, index=index, dtype=values.dtype, name=read(node["name"]))


def write_frame(value: pd.DataFrame, path: str, write: Write) -> dict[str, Any]:
    """Write a table."""
    return {
        "type": "frame",
        "index": write_index(value.index, path, write),
        "columns": write_index(value.columns, path, write),
        "items": [
            write_column(value.iloc[:, k], f"{path}[{name!r}]", write)
            for k, name in enumerate(value.columns)
        ],
    }


def read_frame(node: dict[str, Any], read: Read) -> pd.DataFrame:
    """Read a table that `write_frame` wrote."""
    index = read_index(node["index"], read)
    arrays = (read_column(part, read) for part in node["items"])
    columns = {
        k: pd.Series(values, index=index, dtype=values.dtype) for k, values in enumerate(arrays)
    }
    return pd.DataFrame(columns, index=index).set_axis(read_index(node["columns"], read), axis=1)


# --- Tables of polars -----------------------------------------------------------------------------

POLARS_DTYPES = {
    *(f"{kind}{bits}" for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)),
    *("Float32", "Float64", "Boolean", "String", "Categorical", "Date", "Null"),
}


def is_polars(value: Any) -> bool:
    """Return whether a value is a polars table, without importing polars."""
    kind = type(value)
    return kind.__name__ == "DataFrame" and kind.__module__.split(".")[0] == "polars"


def write_polars(value: Any, path: str, write: Write) -> dict[str, Any]:
    """Write a table of polars whose columns hold numbers, strings, booleans or dates."""
    columns = []
    for series in value.iter_columns():
        dtype = type(series.dtype).__name__
        if dtype not in POLARS_DTYPES:
            raise TypeError(
                f"{path}[{series.name!r}] is of dtype {dtype} of polars, which model files do not "
                "hold."
            )
        items = write(series.to_list(), f"{path}[{series.name!r}]")
        columns.append({"name": series.name, "dtype": dtype, "items": items})
    return {"type": "polars", "columns": columns}


def read_polars(node: dict[str, Any], read: Read) -> Any:
    """Read a table that `write_polars` wrote; polars has to be installed."""
    import polars as pl

    columns = []
    for column in node["columns"]:
        if column["dtype"] not in POLARS_DTYPES:
            raise ValueError(f"a column is of dtype {column['dtype']!r:.40}")
        dtype = getattr(pl, column["dtype"])
        columns.append(pl.Series(column["name"], read(column["items"]), dtype=dtype))
    return pl.DataFrame(columns)
