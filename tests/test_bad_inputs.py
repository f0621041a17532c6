"""Bad inputs by the hundred, made from good ones: each is taken, or refused by a clear error.

A case is an entry point of the package and one thing that is wrong with what it gets. Whatever is
taken gives finite numbers. Whatever is refused raises ValueError or TypeError on purpose, names the
parameter, column or file, and leaves the estimator as it was. No warning of a library gets through.

The suite runs every fifth case of an estimator. ``python -m tests.test_bad_inputs`` runs all of
them, and tells how many each entry point takes and refuses.
"""

import datetime
import inspect
import io
import math
import random
import re
import sys
import traceback
import uuid
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache, partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from skorch.callbacks import EpochScoring

import skqos
from skqos import baselines, inspection, metrics, newcomers, tuning
from skqos.datasets import fetch_wsdream, load_wsdream, make_qos
from skqos.distribution import network
from skqos.model_selection import DensitySplit, SlotSplit
from skqos.persistence import load_model, save_model
from skqos.preprocessing import ContextJoiner
from tests.common import CONTRACTS, Contract
from tests.conftest import N_EPOCHS, N_STEPS

MIN_CASES = 13_000
# The suite runs every so many-th case of an estimator, others of the next estimator.
STRIDE = 5
SEED = 0
# Whatever is learnt must be finite, and no more.
ONE_EPOCH = dict.fromkeys(
    ("max_epochs", "first_stage_epochs", "gcmf_epochs", "autoencoder_epochs", "partial_fit_epochs"),
    1,
)
N_USERS, N_SERVICES = 8, 10
# Where an error may be raised on purpose: here, and where scikit-learn checks its arguments.
RAISERS = (
    Path(skqos.__file__).parent,
    Path(sklearn.__file__).parent / "utils",
    Path(sklearn.__file__).parent / "base.py",
)
# The caller of a library, not the library, may be warned.
LIBRARIES = re.compile(r"[\\/](numpy|pandas|torch|scipy|skorch|polars|geoopt|matplotlib)[\\/]")
DAY = datetime.datetime(2024, 5, 1)


class Fault(AssertionError):
    """An input was handled wrongly."""


@dataclass(frozen=True)
class Case:
    """A call with something wrong in it.

    `call` returns numbers that must be finite, or None; `names` are what an error may call the
    thing that is wrong; `unchanged` raises if the call left a trace.
    """

    entry: str
    what: str
    call: Callable
    names: tuple[str, ...]
    unchanged: Callable = lambda: None
    errors: tuple[type, ...] = (ValueError, TypeError)


# --- The verdict --------------------------------------------------------------------------------


def judge(case):
    """Return "accepted" or the name of the error; raise Fault if the input is handled wrongly."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = case.call()
            verdict = "accepted"
        except Exception as error:
            verdict = _judge_error(case, error)
    if verdict == "accepted" and found is not None:
        _check_finite(found)
    _check_warnings(caught)
    case.unchanged()
    return verdict


def _judge_error(case, error):
    if not isinstance(error, (*case.errors, FloatingPointError)):
        raise Fault(f"raises {_describe(error)}") from error
    path = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if not isinstance(error, OSError) and not any(path.is_relative_to(place) for place in RAISERS):
        raise Fault(f"raises {_describe(error)} from inside {path}") from error
    if isinstance(error, FloatingPointError):
        names = ("learning_rate", *case.names)
    else:
        names = case.names
    if not any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", str(error)) for name in names):
        raise Fault(f"names none of {names}: {_describe(error)}") from error
    return next(
        kind.__name__
        for kind in (FloatingPointError, TypeError, ValueError, OSError)
        if isinstance(error, kind)
    )


def _describe(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _check_finite(found):
    values = np.asarray(found)
    if values.dtype.kind not in "iufb" or not np.isfinite(values).all():
        raise Fault(f"accepted, but the result is {str(values)[:200]}")


def _check_warnings(caught):
    for warning in caught:
        is_ours = issubclass(warning.category, UserWarning)
        if not is_ours or LIBRARIES.search(warning.filename):
            raise Fault(
                f"warns {warning.category.__name__}: {str(warning.message)[:200]} "
                f"({warning.filename}:{warning.lineno})"
            )


# --- Good inputs --------------------------------------------------------------------------------


def _extra_contracts():
    """Return the baselines that have no contract of their own."""
    known = {contract.estimator_class for contract in CONTRACTS}
    tiny = {name: {"max_iter": 1} for name in ("PMFRegressor", "AMFRegressor")}
    for name in baselines.__all__:
        kind = getattr(baselines, name)
        if isinstance(kind, type) and issubclass(kind, BaseEstimator) and kind not in known:
            yield Contract(kind, tiny=tiny.get(name, {}), learning={})


ESTIMATORS = {
    contract.estimator_class.__name__: contract for contract in [*CONTRACTS, *_extra_contracts()]
}


def make_estimator(name, **params):
    contract = ESTIMATORS[name]
    known = inspect.signature(contract.estimator_class).parameters
    common = {"random_state": 0, "device": "cpu", **contract.tiny, **ONE_EPOCH}
    return contract.estimator_class(**{k: v for k, v in common.items() if k in known} | params)


@cache
def good_data(name):
    """Return a frame with context, one of each kind a side, and y."""
    data = ESTIMATORS[name].make_data(N_USERS, N_SERVICES, density=0.6)
    return add_context(data, ESTIMATORS[name].id_columns), data.y


def add_context(data, id_columns):
    X = pd.DataFrame(data.X, columns=id_columns)
    for side, table in (("user", data.users), ("service", data.services)):
        for column in ("country", "latitude"):
            values = table[column].reindex(X[side]).to_numpy()
            X[f"{side}_{column}"] = values.astype(object if column == "country" else float)
    return X


@cache
def fitted(name, named=True):
    X, y = good_data(name)
    model = make_estimator(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X if named else X.to_numpy()[:, : n_ids(name)].astype(np.int64), y)


def n_ids(name):
    return len(ESTIMATORS[name].id_columns)


def ids_of(name):
    return good_data(name)[0].iloc[:, : n_ids(name)].to_numpy(dtype=np.int64)


# --- What can be wrong with values --------------------------------------------------------------


class Unarrayable:
    """What refuses to be an array."""

    def __array__(self, *_, **__):
        raise RuntimeError("no array")

    def __repr__(self):
        return "Unarrayable()"


CELLS = [
    None,
    math.nan,
    math.inf,
    -math.inf,
    1.5,
    2.0**53,
    1e300,
    -1,
    10**30,
    -(10**30),
    10**400,
    True,
    "a",
    "",
    "3",
    b"3",
    1 + 2j,
    complex(3, 0),
    [1],
    (1, 2),
    {1},
    {"a": 1},
    frozenset({2}),
    DAY,
    DAY.date(),
    DAY.time(),
    datetime.timedelta(days=2),
    np.datetime64("NaT", "ns"),
    np.datetime64("2024-05-01"),
    np.timedelta64(3, "s"),
    np.uint64(2**63 + 5),
    np.float16(2.5),
    np.longdouble(3),
    np.ma.masked,
    np.array([1, 2]),
    np.array(3),
    pd.NA,
    pd.NaT,
    pd.Timestamp("2024-05-01", tz="UTC"),
    pd.Period("2024-05"),
    pd.Interval(0, 1),
    Decimal("3.5"),
    Decimal("NaN"),
    Decimal("Infinity"),
    Decimal("1e500"),
    Fraction(1, 3),
    uuid.UUID(int=3),
    object(),
    int,
    len,
    Ellipsis,
    range(3),
    Unarrayable(),
    sparse.eye(2, format="csr"),
    torch.tensor(3),
    torch.tensor([1.0, 2.0]),
    pd.Series([1, 2]),
]

COLUMNS = {
    "float32": lambda v: v.astype(np.float32) + np.float32(0.5),
    "float16": lambda v: v.astype(np.float16),
    "longdouble": lambda v: v.astype(np.longdouble),
    "uint64": lambda v: v.astype(np.uint64) + np.uint64(2**63),
    "bool": lambda v: v.astype(bool),
    "complex": lambda v: v.astype(complex),
    "str": lambda v: v.astype(str),
    "bytes": lambda v: v.astype("S8"),
    "void": lambda v: v.astype("S8").view("V8"),
    "datetime64": lambda v: v.astype("datetime64[s]"),
    "datetime64[as]": lambda v: v.astype("datetime64[as]"),
    "timedelta64": lambda v: v.astype("timedelta64[ms]"),
    "tz": lambda v: pd.Series(pd.to_datetime(v, unit="D", utc=True)),
    "period": lambda v: pd.Series(pd.PeriodIndex.from_ordinals(v, freq="M")),
    "interval": lambda v: pd.Series(pd.arrays.IntervalArray.from_arrays(v, v + 1)),
    "Int64": lambda v: pd.array(v, dtype="Int64"),
    "Int64 with NA": lambda v: pd.array([None, *v[1:].tolist()], dtype="Int64"),
    "Float32": lambda v: pd.array(v + 0.25, dtype="Float32"),
    "boolean": lambda v: pd.array(v > 2, dtype="boolean"),
    "string": lambda v: pd.array(v.astype(str), dtype="string"),
    "category": lambda v: pd.Categorical(v),
    "category of str": lambda v: pd.Categorical(v.astype(str)),
    "category with NaN": lambda v: pd.Categorical(np.where(v, v, np.nan)),
    "sparse": lambda v: pd.arrays.SparseArray(v),
    "sparse floats": lambda v: pd.arrays.SparseArray(np.where(v > 1, v, np.nan)),
    "decimals": lambda v: np.array([Decimal(int(k)) for k in v], dtype=object),
    "fractions": lambda v: np.array([Fraction(int(k), 3) for k in v], dtype=object),
    "lists": lambda v: as_objects([[int(k)] for k in v]),
    "tuples": lambda v: as_objects([(int(k), 1) for k in v]),
    "dicts": lambda v: as_objects([{"id": k} for k in v]),
    "large": lambda v: as_objects([int(k) + 10**25 for k in v]),
    "beyond floats": lambda v: as_objects([int(k) + 10**400 for k in v]),
    "negative": lambda v: -v - 1,
    "most negative": lambda v: v + np.iinfo(np.int64).min,
    "None": lambda v: as_objects([None] * len(v)),
    "NaN": lambda v: np.full(len(v), np.nan),
    "inf": lambda v: np.full(len(v), -np.inf),
    "one": lambda v: np.zeros_like(v),
    "mixed": lambda v: as_objects([k if k % 2 else str(k) for k in v]),
    "large floats": lambda v: v + 2.0**60,
    "near integers": lambda v: v + 1e-9,
}


def as_objects(values):
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return column


def replaced(column, rows, value):
    """Return a column of objects with a value put in some rows."""
    values = as_objects(list(column))
    for row in rows:
        values[row] = value
    return values


def with_column(frame, k, values):
    """Return a frame whose k-th column is another, of whatever type."""
    columns = [frame.iloc[:, j] for j in range(frame.shape[1])]
    columns[k] = pd.Series(values, dtype=object) if is_objects(values) else pd.Series(values)
    return pd.concat([c.reset_index(drop=True) for c in columns], axis=1).set_axis(
        frame.columns, axis=1
    )


def is_objects(values):
    return isinstance(values, np.ndarray) and values.dtype == object


def list_of_rows(frame):
    return [list(row) for row in frame.astype(object).itertuples(index=False, name=None)]


def object_array(frame):
    array = np.empty(frame.shape, dtype=object)
    for k in range(frame.shape[1]):
        array[:, k] = as_objects(list(frame.iloc[:, k]))
    return array


CONTAINERS = {
    "frame": lambda frame: frame,
    "list": list_of_rows,
    "tuple": lambda frame: tuple(map(tuple, list_of_rows(frame))),
    "array": object_array,
}


def as_matrix(values):
    with warnings.catch_warnings():
        # numpy advises against them.
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.asmatrix(values)


def whole_X(X):
    """Return things that are wrong with X as a whole."""
    import polars as pl

    ids = X.select_dtypes("int64").to_numpy()
    n, width = ids.shape
    names = list(X.columns)
    swapped = [names[1], names[0], *names[2:]]
    return {
        "None": None,
        "number": 3,
        "text": "17, 4032",
        "path": Path("X.csv"),
        "dict": {"user": [1], "service": [2]},
        "set": {1, 2},
        "generator": (row for row in ids.tolist()),
        "range": range(10),
        "iterator": iter([[1, 2]]),
        "function": len,
        "class": pd.DataFrame,
        "unarrayable": Unarrayable(),
        "empty list": [],
        "empty rows": [[], []],
        "list of None": [None, None],
        "0 rows": X.iloc[:0],
        "0 rows of an array": ids[:0],
        "0 rows of polars": pl.DataFrame(ids, schema=names[:width]).head(0),
        "lazy": pl.DataFrame(ids, schema=names[:width]).lazy(),
        "0 columns": X.iloc[:, :0],
        "0 columns of an array": ids[:, :0],
        "one column": X.iloc[:, :1],
        "one column of an array": ids[:, :1],
        "1-D": ids[:, 0],
        "0-D": np.array(3),
        "3-D": ids[..., None],
        "4-D list": [[[[1]]]],
        "transposed": ids.T,
        "Series": X.iloc[:, 0],
        "Index": X.index,
        "row": X.iloc[0],
        "ragged": [[1, 2, 3], [1, 2]],
        "ragged beside a number": [[1, 2], 3],
        "rows of text": ["ab", "cd"],
        "a row is None": [*ids.tolist()[1:], None],
        "csr": sparse.csr_matrix(ids),
        "coo": sparse.coo_array(ids),
        "masked": np.ma.array(ids, mask=ids == ids[0, 0]),
        "masked nowhere": np.ma.array(ids),
        "masked constant": np.ma.masked,
        "structured": np.zeros(3, dtype=[("user", int), ("service", int)]),
        "records": X.iloc[:, :width].to_records(index=False),
        "matrix": as_matrix(ids),
        "tensor": torch.tensor(ids),
        "meta tensor": torch.empty(n, width, device="meta"),
        "bytes": bytes(10),
        "memoryview": memoryview(ids.copy()),
        "swapped names": X.set_axis(swapped, axis=1),
        "swapped columns": X[swapped],
        "repeated name": X.set_axis([*names[:-1], names[-2]], axis=1),
        "names of two kinds": X.set_axis([*names[:-1], 7], axis=1),
        "numbered": X.set_axis(range(len(names)), axis=1),
        "tuples as names": X.set_axis(pd.MultiIndex.from_tuples([(n, "") for n in names]), axis=1),
        "None as a name": X.set_axis([*names[:-1], None], axis=1),
        "NaN as a name": X.set_axis([*names[:-1], math.nan], axis=1),
        "user last": X[[*names[1:], names[0]]],
        "time among context": X.assign(timestamp=1),
        "user_id among context": X.assign(user_id=1),
        "unused": X.assign(other=object()),
        "a column less": X.iloc[:, :-1],
        "columns in another order": X[[*names[:width], *names[:-3:-1], *names[width:-2]]],
        "renamed": X.rename(columns={names[-1]: "service_longitude"}),
        "row labels": X.set_index(pd.MultiIndex.from_arrays([range(n), range(n)])),
        "repeated row labels": X.set_index(np.zeros(n, dtype=int)),
        "one row": X.iloc[[0]],
        "one user": X[X.iloc[:, 0] == X.iloc[0, 0]],
        "Fortran order": np.asfortranarray(ids),
        "big-endian": ids.astype(">i8"),
        "read-only": np.broadcast_to(ids[:1], (n, width)),
        "reversed": ids[::-1],
    }


def whole_y(y):
    """Return things that are wrong with y as a whole."""
    import polars as pl

    n = len(y)
    return {
        "None": None,
        "number": 3.0,
        "text": "fast",
        "dict": {0: 1.0},
        "set": {1.0, 2.0},
        "generator": (value for value in y),
        "function": len,
        "unarrayable": Unarrayable(),
        "empty": [],
        "a row less": y[:-1],
        "a row more": np.append(y, 1.0),
        "twice": np.append(y, y),
        "column": y[:, None],
        "frame of one": pd.DataFrame({"rt": y}),
        "two columns": np.column_stack([y, y]),
        "frame of text": pd.DataFrame({"rt": y.astype(str), "tp": y}),
        "two columns, one never observed": np.column_stack([y, np.full(n, np.nan)]),
        "two columns, rows never observed": np.column_stack([y, y])
        * np.where(y > 1, 1, np.nan)[:, None],
        "no columns": y[:, None][:, :0],
        "row": y[None],
        "3-D": y[:, None, None],
        "ragged": [[1.0, 2.0], [1.0]],
        "csr": sparse.csr_matrix(y[:, None]),
        "masked": np.ma.array(y, mask=y == y[0]),
        "masked nowhere": np.ma.array(y),
        "masked constant": np.ma.masked,
        "complex": y.astype(complex),
        "str": y.astype(str),
        "bytes": y.astype("S8"),
        "void": y.astype("S8").view("V8"),
        "structured": np.zeros(n, dtype=[("rt", float)]),
        "durations": y.astype("timedelta64[s]"),
        "dates": y.astype("datetime64[s]"),
        "tz": pd.Series(pd.to_datetime(y, unit="s", utc=True)),
        "period": pd.Series(pd.period_range("2024", periods=n, freq="D")),
        "interval": pd.Series(pd.interval_range(0, n)),
        "category": pd.Series(pd.Categorical(y.astype(str))),
        "category of numbers": pd.Series(pd.Categorical(y)),
        "string": pd.Series(y.astype(str), dtype="string"),
        "Int64 with NA": pd.array([None, *range(1, n)], dtype="Int64"),
        "Float64": pd.array(y, dtype="Float64"),
        "bool": y > np.median(y),
        "boolean": pd.array(y > 1, dtype="boolean"),
        "sparse": pd.Series(pd.arrays.SparseArray(y)),
        "zeros": np.zeros(n),
        "constant": np.full(n, 5.0),
        "almost constant": np.full(n, 5.0) + np.eye(n)[0] * 1e-15,
        "largest": np.full(n, 1e308),
        "near the limit": np.where(y > 1, 1e299, -1e299),
        "smallest": np.full(n, 1e-320),
        "small and large": np.where(np.arange(n) % 2, 1e-300, 1e299),
        "inf": np.full(n, np.inf),
        "NaN": np.full(n, np.nan),
        "uint64": np.full(n, 2**64 - 1, dtype=np.uint64),
        "int8": np.arange(n).astype(np.int8),
        "float16": y.astype(np.float16),
        "longdouble": y.astype(np.longdouble) * np.longdouble("1e400"),
        "large integers": as_objects([10**30 + k for k in range(n)]),
        "beyond floats": as_objects([10**400] * n),
        "Nones": [None] * n,
        "-1 for missing": np.where(np.arange(n) % 3, y, -1.0),
        "negative": -y,
        "tensor": torch.tensor(y),
        "tensor with gradient": torch.tensor(y).requires_grad_(),
        "polars": pl.Series(y),
        "polars of text": pl.Series(y.astype(str)),
        "row labels": pd.Series(y, index=range(n, 0, -1)),
        "big-endian": y.astype(">f8"),
    }


PARAMETERS = [
    None,
    "nonsense",
    "",
    b"adam",
    math.nan,
    math.inf,
    -math.inf,
    -1,
    0,
    1,
    1.5,
    -0.5,
    0.3,
    1e308,
    5e-324,
    10**30,
    -(10**30),
    10**400,
    2**64,
    True,
    [],
    [1],
    ["a"],
    (),
    {},
    set(),
    {"a": 1},
    object(),
    1 + 2j,
    len,
    int,
    Decimal("0.5"),
    Fraction(1, 2),
    np.float64("nan"),
    np.float32("inf"),
    np.int64(-1),
    np.int8(3),
    np.uint64(2**64 - 1),
    np.bool_(True),
    np.str_("auto"),
    np.array([1, 2]),
    np.array(3),
    np.array([]),
    np.array(["a", "b"]),
    np.datetime64("2024-05-01"),
    np.ma.masked,
    pd.NA,
    pd.NaT,
    pd.Series([1, 2]),
    datetime.timedelta(1),
    [None],
    [math.nan],
    (0,),
    (-1,),
    (1.5,),
    (10**30,),
    ((1,),),
    ("attention", 3),
    [[1, 2], [3]],
    range(2),
    {1: 2}.keys(),
    Ellipsis,
    NotImplemented,
    Unarrayable(),
    torch.tensor(3),
    sparse.eye(2, format="csr"),
]

DEVICES = [
    *(
        "",
        "gpu",
        "cuda:99",
        "meta",
        "hpu",
        "privateuseone",
        "cpu:7",
        "CPU",
        "mps",
        "xpu",
        "cuda:-1",
    ),
    *("cpu ", "cpu:x", None, 0, -1, 1.5, math.nan, [], ["cpu"], b"cpu", object(), True),
    *(torch.device("cpu"), torch.device("meta"), {"cpu"}, np.str_("cpu"), Ellipsis, "é", "a\0b"),
]
CALLBACKS = [
    [1],
    [None],
    ["print_log"],
    [EpochScoring],
    [len],
    [("a", 1)],
    [("a", EpochScoring("r2"), 3)],
    [()],
    [[]],
    [math.nan],
    (object(),),
    "abc",
    {"a": 1},
    1,
    EpochScoring("r2"),
    np.array([1]),
    [{}],
    [pd.NA],
    [np.array([1, 2])],
    [(1, EpochScoring("r2"))],
]
SEEDS = [-1, 2**32, 1.5, math.nan, "a", [], [-1], [1, 2], {}, np.random.default_rng(0), b"", 10**30]


def show(value):
    return re.sub(r" at 0x\w+", "", repr(value))[:60].replace("\n", " ")


# --- The cases of estimators --------------------------------------------------------------------


def bad_Xs(X, width, rng, n_cells):
    """Yield (what, names, bad X): the whole, columns and cells, of ids and of context."""
    for what, value in whole_X(X).items():
        yield what, ("X", "column", "columns", "feature names", "user ids"), value
    columns = list(enumerate(X.columns))
    for k, column in columns:
        names = ("X", "column", "user ids", "service ids", column)
        plain = pd.factorize(X.iloc[:, k])[0].astype(np.int64)
        for what, make in rng.sample(sorted(COLUMNS.items()), 12 if k < width else 7):
            yield f"{column} of {what}", names, with_column(X, k, make(plain))
        for value in rng.sample(CELLS, n_cells):
            container = rng.choice(sorted(CONTAINERS)) if k < width else "frame"
            part = X if container == "frame" else X.iloc[:, :width]
            rows = rows_of_change(X, k, rng)
            bad = with_column(part, k, replaced(part.iloc[:, k], rows, value))
            what = f"{column} with {show(value)} in rows {rows[:2]}, as {container}"
            yield what, names, CONTAINERS[container](bad)


def rows_of_change(X, k, rng):
    """Return one row, all rows, or those of one entity, which then still has one context."""
    side = X.iloc[:, 1 if str(X.columns[k]).startswith("service") else 0]
    row = rng.randrange(len(X))
    entity = np.flatnonzero(side == side.iloc[row])
    return rng.choice([[row], list(range(len(X))), entity.tolist(), entity.tolist()])


def bad_ys(y, rng, n_cells, name="y"):
    """Yield (what, names, bad y)."""
    for what, value in whole_y(y).items():
        yield what, (name, "targets" if name != "y" else "y"), value
    for value in rng.sample(CELLS, n_cells):
        container = rng.choice([list, as_objects, lambda v: pd.Series(as_objects(v))])
        rows = rng.choice([[rng.randrange(len(y))], list(range(len(y)))])
        what = f"{show(value)} in rows {rows[:2]}"
        yield what, (name,), container(list(replaced(y, rows, value)))


def bad_parameters(owner, rng, n_values, skip=()):
    """Yield (what, names, keywords) for every parameter of a class or function."""
    special = {"device": DEVICES, "callbacks": CALLBACKS, "random_state": SEEDS}
    for name, parameter in inspect.signature(owner).parameters.items():
        if name in skip or parameter.kind is parameter.VAR_KEYWORD:
            continue
        values = rng.sample(PARAMETERS, n_values)
        values += rng.sample(special.get(name, []), min(12, len(special.get(name, []))))
        for value in values:
            yield f"{name}={show(value)}", (name,), {name: value}


def watch(model):
    """Return a function that raises Fault if the model is not as it is now."""
    before = dict(vars(model))

    def check():
        after = vars(model)
        changed = [k for k in {*before, *after} if before.get(k, check) is not after.get(k, check)]
        if changed:
            raise Fault(f"changed {changed} of the estimator")

    return check


def fit_and_predict(model, X, y, **options):
    """Fit; return the predictions, and put a model that was fitted before back as it was."""
    before = dict(vars(model))
    model.fit(X, y, **options)
    predicted = model.predict(X)
    vars(model).clear()
    vars(model).update(before)
    return predicted


def update_and_predict(model, X, y, **options):
    before = dict(vars(model))
    model.partial_fit(X, y, **options)
    predicted = model.predict(X)
    vars(model).clear()
    vars(model).update(before)
    return predicted


def of_fit(name, rng):
    """Bad X, y and parameters of `fit`, of a model that is fitted already."""
    X, y = good_data(name)
    model = fitted(name)
    entry, make = f"{name}.fit", partial(fit_and_predict, model)
    for what, names, bad in bad_Xs(X, n_ids(name), rng, n_cells=8):
        yield Case(entry, f"X: {what}", partial(make, bad, y), names, watch(model))
    for what, names, bad in bad_ys(y, rng, n_cells=16):
        yield Case(entry, f"y: {what}", partial(make, X, bad), names, watch(model))
    yield from of_weights(entry, make, model, X, y, rng)


def of_weights(entry, make, model, X, y, rng):
    """Bad weights of rows, of `fit` and of `partial_fit`."""
    for what, _, bad in rng.sample(list(bad_ys(y, rng, n_cells=10)), 15):
        call = partial(make, X, y, sample_weight=bad)
        yield Case(entry, f"sample_weight: {what}", call, ("sample_weight",), watch(model))


def of_validation(name, rng):
    """Bad validation rows."""
    if "early_stopping" not in inspect.signature(ESTIMATORS[name].estimator_class).parameters:
        return
    X, y = good_data(name)
    model = make_estimator(name, early_stopping=True)
    entry, make = f"{name}.fit", partial(fit_and_predict, model, X, y)
    for what, _, bad in rng.sample(list(bad_Xs(X, n_ids(name), rng, n_cells=2)), 25):
        call = partial(make, X_val=bad, y_val=y)
        yield Case(entry, f"X_val: {what}", call, ("X_val", "y_val"), watch(model))
    for what, _, bad in rng.sample(list(bad_ys(y, rng, n_cells=10)), 25):
        call = partial(make, X_val=X, y_val=bad)
        yield Case(entry, f"y_val: {what}", call, ("X_val", "y_val"), watch(model))


def of_parameters(name, rng):
    X, y = good_data(name)
    kind = ESTIMATORS[name].estimator_class
    for what, names, bad in bad_parameters(kind, rng, n_values=5):
        model = make_estimator(name, **bad)
        yield Case(f"{name}()", what, partial(fit_and_predict, model, X, y), names, watch(model))


def of_predict(name, rng):
    X, _ = good_data(name)
    model = fitted(name)
    unchanged = keeps_predictions(name, model)
    for what, names, bad in bad_Xs(X, n_ids(name), rng, n_cells=14):
        yield Case(f"{name}.predict", f"X: {what}", partial(model.predict, bad), names, unchanged)
    bare = fitted(name, named=False)
    for what, names, bad in bad_Xs(X, n_ids(name), rng, n_cells=3):
        call = partial(bare.predict, bad)
        yield Case(f"{name}.predict", f"after an array, X: {what}", call, names, watch(bare))


def keeps_predictions(name, model):
    """Return a function that raises Fault if the model, or what it predicts, has changed."""
    X, _ = good_data(name)
    probe = X.iloc[:5]
    before, is_same = model.predict(probe), watch(model)

    def check():
        is_same()
        if not np.array_equal(model.predict(probe), before):
            raise Fault("the model predicts something else afterwards")

    return check


def of_devices(name, rng):
    """A fitted model whose device is set to something else."""
    if "device" not in inspect.signature(ESTIMATORS[name].estimator_class).parameters:
        return
    X, _ = good_data(name)

    def predict_on(device):
        model = fitted(name)
        model.set_params(device=device)
        try:
            return model.predict(X)
        finally:
            model.set_params(device="cpu")

    unchanged = keeps_predictions(name, fitted(name))
    for device in DEVICES:
        what = f"device={show(device)}"
        call = partial(predict_on, device)
        yield Case(f"{name}.predict", what, call, ("device",), unchanged)


def of_score(name, rng):
    X, y = good_data(name)
    model = fitted(name)
    unchanged = watch(model)
    methods = [m for m in ("score", "expert_shares") if hasattr(model, m)]
    for method in methods:
        call = getattr(model, method)
        for what, names, bad in rng.sample(list(bad_ys(y, rng, n_cells=10)), 40):
            arguments = partial(finite_score, call, X, bad)
            names = (*names, "y_true")
            yield Case(f"{name}.{method}", f"y: {what}", arguments, names, unchanged)
        for what, names, bad in rng.sample(list(bad_Xs(X, n_ids(name), rng, n_cells=2)), 25):
            arguments = partial(finite_score, call, bad, y)
            yield Case(f"{name}.{method}", f"X: {what}", arguments, (*names, "y"), unchanged)
    if "sample_weight" not in inspect.signature(model.score).parameters:
        return
    for what, _, bad in rng.sample(list(bad_ys(y, rng, n_cells=10)), 15):
        call = partial(model.score, X, y, sample_weight=bad)
        yield Case(f"{name}.score", f"sample_weight: {what}", call, ("sample_weight",), unchanged)


def finite_score(call, X, y):
    return np.asarray(call(X, y), dtype=np.float64)


def of_partial_fit(name, rng):
    if not hasattr(ESTIMATORS[name].estimator_class, "partial_fit"):
        return
    X, y = good_data(name)
    model = fitted(name)
    entry, make = f"{name}.partial_fit", partial(update_and_predict, model)
    Xs = list(bad_Xs(X, n_ids(name), rng, n_cells=6))
    for what, names, bad in rng.sample(Xs, 45):
        names = (*names, "y")
        yield Case(entry, f"X: {what}", partial(make, bad, y), names, watch(model))
    for what, names, bad in rng.sample(list(bad_ys(y, rng, n_cells=10)), 30):
        yield Case(entry, f"y: {what}", partial(make, X, bad), names, watch(model))
    yield from of_weights(entry, make, model, X, y, rng)


@cache
def fitted_with_intervals(name):
    X, y = good_data(name)
    return make_estimator(name, intervals=True).fit(X, y)


def of_quantiles(name, rng):
    """Bad levels and limits of the methods that predict a distribution."""
    if "intervals" not in inspect.signature(ESTIMATORS[name].estimator_class).parameters:
        return
    X, _ = good_data(name)
    model = fitted_with_intervals(name)
    unchanged = keeps_predictions(name, model)
    for method, parameter in (
        ("predict", "quantiles"),
        ("predict_interval", "confidence_level"),
        ("predict_probability", "limit"),
    ):
        call = getattr(model, method)
        for value in rng.sample(PARAMETERS, 30):
            make = partial(call, X, **{parameter: value})
            what = f"{parameter}={show(value)}"
            yield Case(f"{name}.{method}", what, make, (parameter,), unchanged)


OF_ESTIMATORS = [
    of_fit,
    of_validation,
    of_parameters,
    of_predict,
    of_quantiles,
    of_devices,
    of_score,
    of_partial_fit,
]


# --- The cases of everything else ---------------------------------------------------------------


@cache
def joined_data():
    return make_qos(N_USERS, N_SERVICES, density=0.6, random_state=0)


def of_joiner(rng):
    data = joined_data()
    X = add_context(data, ["user", "service"]).iloc[:, :2]
    joiner = ContextJoiner(data.users, data.services).fit(X)
    for what, names, bad in bad_Xs(X, 2, rng, n_cells=16):
        names = (*names, "columns", "users")
        fit = partial(join, data.users, data.services, bad)
        yield Case("ContextJoiner.fit", f"X: {what}", fit, names)
        call = partial(lambda bad: shape_of(joiner.transform(bad)), bad)
        yield Case("ContextJoiner.transform", f"X: {what}", call, names, watch(joiner))
    for parameter in ("users", "services"):
        tables = {"users": data.users, "services": data.services}
        for what, bad in bad_tables(tables[parameter], rng):
            call = partial(join, **{**tables, parameter: bad}, X=X)
            yield Case("ContextJoiner()", f"{parameter}: {what}", call, (parameter,))


def join(users, services, X):
    return shape_of(ContextJoiner(users, services).fit_transform(X))


def shape_of(table):
    return np.array(table.shape)


def bad_tables(table, rng):
    """Yield (what, bad table)."""
    n = len(table)
    entity = table.index.name
    yield from ((show(value), value) for value in rng.sample(PARAMETERS, 25) if value is not None)
    yield from {
        "no rows": table.iloc[:0],
        "no columns": table.iloc[:, :0],
        "a list": table.to_numpy().tolist(),
        "a dict": table.to_dict(),
        "a Series": table["country"],
        "NaN in the index": table.set_index(pd.Index([math.nan, *range(1, n)])),
        "None in the index": table.set_index(pd.Index([None, *range(1, n)], dtype=object)),
        "lists in the index": table.set_index(pd.Index(as_objects([[k] for k in range(n)]))),
        "repeated ids": table.set_index(pd.Index([1, 1, *range(2, n)])),
        "strings as ids": table.set_index(table.index.astype(str)),
        "bytes as ids": table.set_index(pd.Index(as_objects([b"%d" % k for k in range(n)]))),
        "floats as ids": table.set_index(table.index + 0.5),
        "dates as ids": table.set_index(pd.date_range("2024", periods=n)),
        "intervals as ids": table.set_index(pd.interval_range(0, n)),
        "tuples as ids": table.set_index(pd.MultiIndex.from_product([range(n), [0]])),
        "complex ids": table.set_index(table.index.astype(complex)),
        "huge ids": table.set_index(pd.Index(as_objects([10**30 + k for k in range(n)]))),
        "ids of two kinds": table.set_index(pd.Index(as_objects(["a", *range(1, n)]))),
        "other ids": table.set_index(table.index + 1000),
        "a repeated column": table.set_axis(["x", "x", *table.columns[2:]], axis=1),
        "a column for ids": table.assign(**{entity: 1}),
        "a column for ids as well": table.assign(user_id=1, service_id=1),
        "numbered columns": table.set_axis(range(table.shape[1]), axis=1),
        "columns of several levels": table.set_axis(
            pd.MultiIndex.from_product([table.columns, ["a"]]), axis=1
        ),
    }.items()
    plain = np.arange(n)
    for what, make in COLUMNS.items():
        yield f"a column of {what}", table.assign(x=pd.Series(make(plain)).array)
    for value in rng.sample(CELLS, 25):
        values = replaced(plain, [rng.randrange(n)], value)
        yield f"{show(value)} in a column", table.assign(x=pd.Series(values, dtype=object))


def of_splitters(rng):
    X2, X3 = ids_of("SAMoERegressor"), ids_of("TPMCFRegressor")
    for make, X in (
        (partial(DensitySplit, n_splits=1, density=0.2, random_state=0), X2),
        (partial(SlotSplit, window=2, density=0.1, random_state=0), X3),
    ):
        name = make.func.__name__
        for what, names, bad in bad_parameters(make.func, rng, n_values=14):
            call = partial(split, partial(make, **bad), X)
            yield Case(f"{name}()", what, call, (*names, "density"))
        frame = pd.DataFrame(X, columns=["user", "service", "time"][: X.shape[1]])
        for what, names, bad in bad_Xs(frame, X.shape[1], rng, n_cells=10):
            names = (*names, "density")
            yield Case(f"{name}.split", f"X: {what}", partial(split, make, bad), names)
        for what, _, bad in rng.sample(list(bad_ys(X[:, 0] + 0.5, rng, n_cells=5)), 8):
            yield Case(f"{name}.split", f"y: {what}", partial(split, make, X, bad), ("y",))


def split(make, X, y=None):
    splits = list(islice(make().split(X, y), 2))
    return [len(rows) for part in splits for rows in part]


METRICS = [
    metrics.nan_mean_absolute_error,
    metrics.nan_root_mean_squared_error,
    metrics.nan_normalized_mean_absolute_error,
    metrics.nan_r2_score,
]
# No estimator here predicts quantiles.
SCORERS = [
    name
    for name in metrics.__all__
    if name.endswith("_scorer") and not name.startswith("make_") and name != "neg_winkler_scorer"
]


def of_metrics(rng):
    _, y = good_data("SAMoERegressor")
    for metric in METRICS:
        for what, names, bad in rng.sample(list(bad_ys(y, rng, 20, name="y_true")), 40):
            call = partial(metric, bad, y)
            yield Case(metric.__name__, f"y_true: {what}", call, names)
        for what, names, bad in rng.sample(list(bad_ys(y, rng, 20, name="y_pred")), 25):
            call = partial(metric, y, bad)
            yield Case(metric.__name__, f"y_pred: {what}", call, (*names, "y_true"))
        for value in rng.sample(PARAMETERS, 12):
            call = partial(metric, y, y, multioutput=value)
            yield Case(metric.__name__, f"multioutput={show(value)}", call, ("multioutput",))
    for what, names, bad in bad_ys(y, rng, 10):
        call = partial(count_outliers, bad)
        yield Case("outlier_mask", f"y: {what}", call, names)
    for what, names, bad in bad_parameters(metrics.outlier_mask, rng, 20, skip={"y"}):
        yield Case("outlier_mask", what, partial(count_outliers, y, **bad), names)
    yield from of_intervals(rng, y)
    yield from of_choices(rng, y)
    model, X = fitted("SAMoERegressor"), good_data("SAMoERegressor")[0]
    for name in SCORERS:
        for what, _, bad in rng.sample(list(bad_ys(y, rng, 10)), 12):
            call = partial(getattr(metrics, name), model, X, bad)
            yield Case(name, f"y: {what}", call, ("y", "y_true"), watch(model))


def of_intervals(rng, y):
    intervals = np.column_stack([y - 1, y + 1])
    options = {"groups": np.arange(len(y)) % 3}
    for metric in (metrics.interval_coverage, metrics.winkler_score):
        for what, names, bad in rng.sample(list(bad_ys(y, rng, 20, name="y_true")), 25):
            call = partial(metric, bad, intervals)
            yield Case(metric.__name__, f"y_true: {what}", call, (*names, "intervals"))
        for what, _, bad in rng.sample(list(bad_ys(y, rng, 20)), 25):
            call = partial(metric, y, bad)
            yield Case(metric.__name__, f"intervals: {what}", call, ("intervals", "y_true"))
        skip = {"y_true", "intervals", "groups"}
        for what, names, bad in bad_parameters(metric, rng, 15, skip=skip):
            yield Case(metric.__name__, what, partial(metric, y, intervals, **bad), names)
    for value in [*PARAMETERS, *(replaced(options["groups"], [3], cell) for cell in CELLS)]:
        call = partial(metrics.interval_coverage, y, intervals, groups=value)
        yield Case("interval_coverage", f"groups={show(value)}", call, ("groups",))
    for what, _, bad in rng.sample(list(bad_ys(y, rng, 20)), 25):
        call = partial(metrics.interval_coverage, y, intervals, by=bad)
        yield Case("interval_coverage", f"by: {what}", call, ("by",))
    for what, names, bad in bad_parameters(
        metrics.nan_pinball_loss, rng, 20, skip={"y_true", "y_pred", "multioutput"}
    ):
        call = partial(metrics.nan_pinball_loss, y, y, **{"quantile": 0.5, **bad})
        yield Case("nan_pinball_loss", what, call, names)


def of_choices(rng, y):
    users = np.arange(len(y)) % 4
    good = {"y_true": y, "y_pred": y, "users": users, "n_services": 3}
    for metric in (metrics.choice_regret, metrics.near_best_share):
        for name in ("y_true", "y_pred"):
            for what, _, bad in rng.sample(list(bad_ys(y, rng, 20)), 25):
                call = partial(metric, **{**good, name: bad})
                yield Case(metric.__name__, f"{name}: {what}", call, (name, "y_true", "users"))
        for what, names, bad in bad_parameters(metric, rng, 12, skip={"y_true", "y_pred"}):
            yield Case(metric.__name__, what, partial(metric, **{**good, **bad}), names)
        for value in CELLS:
            bad = replaced(users, [3], value)
            call = partial(metric, **{**good, "users": bad})
            yield Case(metric.__name__, f"users with {show(value)}", call, ("users",))


def count_outliers(*arguments, **keywords):
    return metrics.outlier_mask(*arguments, **keywords).sum()


def of_make_qos(rng):
    for what, names, bad in bad_parameters(make_qos, rng, n_values=14):
        yield Case("make_qos", what, partial(make_few, **bad), names)


def make_few(**params):
    small = {"n_users": 5, "n_services": 6, "density": 0.3, "n_qos": 2, "random_state": 0}
    data = make_qos(**{**small, **params})
    return np.nan_to_num(data.y, nan=0.0)


class Trial:
    """Draws the lowest value, as a trial of Optuna would."""

    def suggest_float(self, name, low, high, log=False):
        return float(low)

    def suggest_int(self, name, low, high, log=False):
        return low

    def suggest_categorical(self, name, values):
        return values[0]

    def report(self, value, step):
        assert math.isfinite(value)

    def should_prune(self):
        return False


def of_tuning(rng):
    def draw(estimator, trial, **keywords):
        params = tuning.suggest_params(estimator, trial, **keywords)
        estimator.set_params(**params)

    kinds = [*PARAMETERS, make_qos, ContextJoiner, ContextJoiner(), skqos.SAMoERegressor]
    kinds += [[("a", skqos.SAMoERegressor())], "SAMoERegressor"]
    model = skqos.SAMoERegressor()
    for value in kinds:
        call = partial(draw, value, Trial())
        yield Case("suggest_params", f"estimator={show(value)}", call, ("estimator",))
    for last in (None, "passthrough", "drop", 3, ContextJoiner(), Pipeline([])):
        pipeline = Pipeline([("last", last)])
        call = partial(draw, pipeline, Trial())
        yield Case("suggest_params", f"a pipeline ends in {last}", call, ("estimator",))
    for steps in ([], None, 3, [("a",)], [1]):
        call = partial(draw, Pipeline(steps), Trial())
        yield Case("suggest_params", f"a pipeline with steps={steps}", call, ("estimator", "steps"))
    for value in PARAMETERS:
        trial = partial(draw, model, value)
        yield Case("suggest_params", f"trial={show(value)}", trial, ("trial",))
        if not isinstance(value, str):
            prefix = partial(tuning.suggest_params, model, Trial(), prefix=value)
            yield Case("suggest_params", f"prefix={show(value)}", prefix, ("prefix",))
    ranges = [tuning.FloatRange(0.1, 0.5), tuning.IntRange(1, 3), tuning.Choice((1, "a", None))]
    for space in ranges:
        for value in PARAMETERS:
            call = partial(lambda space, value: bool(value in space), space, value)
            yield Case(f"{type(space).__name__}.__contains__", show(value), call, ())
    yield from of_ranges(rng)
    X, y = good_data("SAMoERegressor")
    for what, names, bad in bad_parameters(tuning.OptunaPruning, rng, n_values=15):
        keywords = {"trial": Trial(), **bad}
        call = partial(prune, keywords, X, y)
        yield Case("OptunaPruning", what, call, (*names, "OptunaPruning"))


def of_ranges(rng):
    for kind, good in ((tuning.FloatRange, (0.1, 0.5)), (tuning.IntRange, (1, 3))):
        for k, name in enumerate(("low", "high", "log")):
            for value in rng.sample(PARAMETERS, 20):
                bounds = [*good, False]
                bounds[k] = value
                call = partial(
                    lambda kind, bounds: kind(*bounds).suggest(Trial(), "x"), kind, bounds
                )
                names = (name, "low", "high")
                yield Case(f"{kind.__name__}()", f"{name}={show(value)}", call, names)
    for value in PARAMETERS:
        call = partial(lambda value: tuning.Choice(value).suggest(Trial(), "x") and None, value)
        yield Case("Choice()", f"values={show(value)}", call, ("values",))


def suggest(kind, bounds):
    return kind(*bounds).suggest(Trial(), "x")


def prune(keywords, X, y):
    callback = tuning.OptunaPruning(**keywords)
    model = make_estimator("SAMoERegressor", callbacks=[callback], early_stopping="monitor")
    return model.fit(X, y).predict(X)


# --- Displays -----------------------------------------------------------------------------------

DISPLAYED = {
    inspection.AttentionDisplay: "TPMCFRegressor",
    inspection.ExpertShareDisplay: "SAMoERegressor",
    inspection.GateProbabilityDisplay: "SharpQoSRegressor",
    inspection.GroupErrorDisplay: "SAMoERegressor",
    inspection.LatentStateDisplay: "R2SLRegressor",
    inspection.TrainingHistoryDisplay: "SAMoERegressor",
}


def of_displays(rng):
    for display, name in DISPLAYED.items():
        X, y = good_data(name)
        good = {"estimator": fitted(name), "X": X, "y": y, "user_groups": "user_country"}
        taken = inspect.signature(display.from_estimator).parameters
        good = {key: value for key, value in good.items() if key in taken}
        entry = f"{display.__name__}.from_estimator"
        for what, names, bad in bad_parameters(
            display.from_estimator, rng, n_values=5, skip={"X", "y"}
        ):
            # What is asked of matplotlib is matplotlib's to check.
            if not (names[0].endswith("_kw") and isinstance(bad[names[0]], dict)):
                call = partial(draw, display.from_estimator, {**good, **bad})
                yield Case(entry, what, call, (*names, display.__name__))
        if "X" in taken:
            for what, names, bad in rng.sample(list(bad_Xs(X, n_ids(name), rng, 2)), 12):
                names = (*names, "y", "user_groups", "y_true")
                yield Case(
                    entry,
                    f"X: {what}",
                    partial(draw, display.from_estimator, {**good, "X": bad}),
                    names,
                )
        if "y" in taken:
            for what, _, bad in rng.sample(list(bad_ys(y, rng, 4)), 12):
                call = partial(draw, display.from_estimator, {**good, "y": bad})
                yield Case(entry, f"y: {what}", call, ("y", "y_true"))
    yield from of_group_errors(rng)
    yield from of_interval_displays(rng)


def of_group_errors(rng):
    _, y = good_data("SAMoERegressor")
    good = {"y_true": y, "y_pred": y, "user_groups": np.arange(len(y)) % 3}
    for what, names, bad in bad_parameters(
        inspection.group_errors, rng, n_values=12, skip={"y_true", "y_pred"}
    ):
        names = (*names, "service_groups")
        call = partial(lambda keywords: [len(inspection.group_errors(**keywords))], {**good, **bad})
        yield Case("group_errors", what, call, names)
    for name in ("y_true", "y_pred"):
        for what, names, bad in rng.sample(list(bad_ys(y, rng, 10, name=name)), 20):
            keywords = {**good, name: bad}
            call = partial(lambda keywords: [len(inspection.group_errors(**keywords))], keywords)
            yield Case("group_errors", f"{name}: {what}", call, (*names, "target", "y_true"))


def of_interval_displays(rng):
    """From predictions: no estimator here predicts quantiles."""
    _, y = good_data("SAMoERegressor")
    intervals = np.column_stack([y - 1, y + 1])
    probability = np.linspace(0, 1, len(y))
    for display, good in {
        inspection.IntervalCoverageDisplay: {"intervals": intervals, "by": y},
        inspection.PredictionIntervalDisplay: {"intervals": intervals, "y_pred": y},
        inspection.ProbabilityCalibrationDisplay: {"probability": probability, "limit": 1.0},
    }.items():
        make, good = display.from_predictions, {"y_true": y, **good}
        entry = f"{display.__name__}.from_predictions"
        for name in sorted(good.keys() - {"limit"}):
            for what, _, bad in rng.sample(list(bad_ys(y, rng, 10)), 20):
                call = partial(draw, make, {**good, name: bad})
                names = (name, "y_true", "intervals", "groups", "target")
                yield Case(entry, f"{name}: {what}", call, names)
        for what, names, bad in bad_parameters(make, rng, n_values=6, skip=good.keys() - {"limit"}):
            if not (names[0].endswith("_kw") and isinstance(bad[names[0]], dict)):
                call = partial(draw, make, {**good, **bad})
                yield Case(entry, what, call, (*names, "by"))


def draw(make, keywords):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    try:
        make(**keywords)
    finally:
        plt.close("all")


# --- Files --------------------------------------------------------------------------------------

FOLDER = {
    "rtMatrix.txt": b"0.5\t1.5\t-1\t\n2.5\t-1\t0.25\t\n",
    "tpMatrix.txt": b"10\t20\t-1\t\n30\t-1\t5\t\n",
    "userlist.txt": (
        b"[User ID]\t[IP Address]\t[Country]\t[IP No.]\t[AS]\t[Latitude]\t[Longitude]\n"
        b"=====\n0\t12.1.2.3\tUnited States\t1\tAS7018\t38.0\t-97.0\n"
        b"1\t13.1.2.3\tJapan\t2\tAS2\t35.0\t139.0\n"
    ),
    "wslist.txt": (
        b"[Service ID]\t[WSDL Address]\t[Service Provider]\t[IP Address]\t[Country]\t[IP No.]\t[AS]"
        b"\t[Latitude]\t[Longitude]\n=====\n"
        b"0\thttp://a.b/c?wsdl\ta.b\t1.2.3.4\tFrance\t1\tAS1\t48.0\t2.0\n"
        b"1\thttp://d.e/f?wsdl\td.e\t1.2.3.5\tItaly\t2\tAS2\t42.0\t12.0\n"
        b"2\thttp://g.h/i?wsdl\tg.h\t1.2.3.6\tSpain\t3\tAS3\t40.0\t-4.0\n"
    ),
}
TRIPLES = {"rtdata.txt": b"0 0 0 0.5\n0 1 0 1.5\n1 0 1 2.5\n", "tpdata.txt": b"0 0 0 9\n1 0 1 8\n"}
FIELDS = [
    *(b"", b"nan", b"inf", b"-inf", b"-5", b"1e400", b"x", b"\xff\xfe", b"\0", b"0x10", b"1,5"),
    *(b"99999999999999999999", b"1e-320", b"--1", b"1.5", b"\t\t", b"\xc3\xa9", b"\xe2\x88\x9e"),
]


def damaged(content, rng):
    """Damage a file in one of many ways; return what was done and the new content."""
    start = rng.randrange(len(content))
    lines = content.split(b"\n")
    line = rng.randrange(len(lines))
    way = rng.choice(["cut", "flip", "insert", "drop", "twice", "field", "field", "field", "field"])
    if way == "cut":
        return f"cut at {start}", content[:start]
    if way == "flip":
        changed = bytearray(content)
        changed[start] ^= 1 << rng.randrange(8)
        return f"bit of byte {start} flipped", bytes(changed)
    if way == "insert":
        noise = rng.randbytes(rng.randrange(1, 20))
        return f"{noise!r} at {start}", content[:start] + noise + content[start:]
    if way == "drop":
        return f"line {line} dropped", b"\n".join(lines[:line] + lines[line + 1 :])
    if way == "twice":
        return f"line {line} twice", b"\n".join([*lines[: line + 1], *lines[line:]])
    separator = b"\t" if b"\t" in content else b" "
    fields = lines[line].split(separator)
    k = rng.randrange(len(fields))
    fields[k] = rng.choice(FIELDS)
    lines[line] = separator.join(fields)
    return f"field {k} of line {line} is {fields[k]!r}", b"\n".join(lines)


def of_data_files(rng, folder):
    for k in range(160):
        files = dict(rng.choice([FOLDER, FOLDER, TRIPLES]))
        name = rng.choice(sorted(files))
        what, files[name] = damaged(files[name], rng)
        path = folder / f"{k}"
        path.mkdir()
        for part, content in files.items():
            (path / part).write_bytes(content)
        qos = rng.choice(["rt", "tp", ["rt", "tp"]])
        call = partial(load, path, qos)
        names = (name, "wslist.txt", "userlist.txt", str(path))
        yield Case("load_wsdream", f"{name}: {what}", call, names, errors=(ValueError, OSError))
    good = folder / "good"
    good.mkdir()
    for part, content in FOLDER.items():
        (good / part).write_bytes(content)
    (folder / "damaged.zip").write_bytes(b"PK\x03\x04" + bytes(30))
    errors = (ValueError, TypeError, OSError)
    for value in [*PARAMETERS, folder / "damaged.zip", folder / "nowhere", "a\0b", "x" * 5000]:
        call = partial(load, value)
        yield Case("load_wsdream", f"path={show(value)}", call, ("path", str(value)), errors=errors)
    for value in [*PARAMETERS, ["rt", "rt"], ["rt", 3], "RT"]:
        call = partial(load, good, value)
        yield Case("load_wsdream", f"qos={show(value)}", call, ("qos",))
    yield from of_fetching(rng, folder)


def of_fetching(rng, folder):
    """All files are there: nothing is downloaded."""
    home = folder / "home"
    (home / "wsdream1").mkdir(parents=True)
    for part, content in FOLDER.items():
        (home / "wsdream1" / part).write_bytes(content)
    for what, names, bad in bad_parameters(fetch_wsdream, rng, n_values=12):
        if isinstance(bad.get("data_home", 0), str | None):
            continue
        call = partial(fetch, {"dataset": 1, "data_home": home, **bad})
        yield Case("fetch_wsdream", what, call, names)


def fetch(keywords):
    y = fetch_wsdream(**keywords).y
    return np.where(np.isnan(y), 0.0, y)


def load(path, qos="rt"):
    data = load_wsdream(path, qos)
    y = data.y
    return np.where(np.isnan(y), 0.0, y) if y.ndim == 2 else y


def of_model_files(rng, folder):
    errors = (ValueError, OSError)
    file = io.BytesIO()
    model = fitted("SAMoERegressor")
    save_model(model, file)
    content = file.getvalue()
    X, _ = good_data("SAMoERegressor")
    expected = model.predict(X)

    def load_the_same(content):
        found = load_model(io.BytesIO(content)).predict(X)
        if not np.array_equal(found, expected):
            raise Fault("a damaged file was loaded as another model")

    for k in range(60):
        start = rng.randrange(len(content))
        changed = bytearray(content)
        changed[start] ^= 1 << rng.randrange(8)
        bad = [bytes(changed), content[:start], content + rng.randbytes(9)][k % 3]
        call = partial(load_the_same, bad)
        what = ["bit flipped", "cut", "longer"][k % 3] + f" at {start}"
        yield Case("load_model", what, call, ("file", "model", "BytesIO"), errors=errors)
    errors = (ValueError, TypeError, OSError)
    for value in [*PARAMETERS, io.StringIO("a"), io.BytesIO(), folder, folder / "nowhere"]:
        call = partial(load_model, value)
        names = ("path", "file", str(value), type(value).__name__)
        yield Case("load_model", f"path={show(value)}", call, names, errors=errors)
        if not isinstance(value, str | int | io.BytesIO) and value is not folder / "nowhere":
            call = partial(save_model, model, value)
            yield Case("save_model", f"path={show(value)}", call, names, watch(model), errors)
        call = partial(save_model, value, io.BytesIO())
        yield Case("save_model", f"estimator={show(value)}", call, ("estimator", "model"))


OTHERS = {
    "joiner": of_joiner,
    "splitters": of_splitters,
    "metrics": of_metrics,
    "make_qos": of_make_qos,
    "tuning": of_tuning,
    "displays": of_displays,
}
FILES = {"data files": of_data_files, "model files": of_model_files}


# --- The tests ----------------------------------------------------------------------------------


def judge_all(cases):
    """Return the verdicts of cases, counted by entry point, and the faults."""
    counts, faults = Counter(), []
    for case in cases:
        try:
            counts[case.entry, judge(case)] += 1
        except Fault as fault:
            counts[case.entry, "FAULT"] += 1
            faults.append(f"{case.entry}, {case.what}: {fault}")
    return counts, faults


def groups(folder):
    """Yield the name and the cases of each group."""
    for name in ESTIMATORS:
        for make in OF_ESTIMATORS:
            rng = random.Random(f"{SEED} {name} {make.__name__}")
            yield f"{name} {make.__name__}", make(name, rng)
    for name, make in OTHERS.items():
        yield name, make(random.Random(f"{SEED} {name}"))
    for name, make in FILES.items():
        yield name, make(random.Random(f"{SEED} {name}"), folder)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("make", OF_ESTIMATORS, ids=lambda make: make.__name__)
def test_estimators_take_or_refuse_bad_input(make, name):
    cases = make(name, random.Random(f"{SEED} {name} {make.__name__}"))
    assert_no_fault(islice(cases, list(ESTIMATORS).index(name) % STRIDE, None, STRIDE))


@pytest.mark.parametrize("name", OTHERS)
def test_functions_and_transformers_take_or_refuse_bad_input(name):
    assert_no_fault(islice(OTHERS[name](random.Random(f"{SEED} {name}")), None, None, STRIDE))


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_read_or_refused(name, tmp_path):
    assert_no_fault(FILES[name](random.Random(f"{SEED} {name}"), tmp_path))


def assert_no_fault(cases):
    _, faults = judge_all(cases)
    assert not faults, "\n".join(faults)


FAULTS = {
    "an error of another kind": (lambda: {}["X"], "raises KeyError"),
    "an error out of a library": (lambda: np.zeros(3).reshape(2, 2), "from inside"),
    "no name": (lambda: make_qos(density=2), "names none of"),
    "a result that is not finite": (lambda: [math.nan], "accepted, but the result is"),
    "a warning of a library": (lambda: [np.float64(1e308) * 10 > 0], "warns Runtime"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_are_seen(kind):
    call, message = FAULTS[kind]
    with pytest.raises(Fault, match=message):
        judge(Case("", "", call, ("X",)))


def test_changes_of_an_estimator_are_seen():
    model = make_estimator("SAMoERegressor")
    unchanged = watch(model)
    unchanged()
    model.set_params(max_epochs=7)
    with pytest.raises(Fault, match=r"changed \['max_epochs'\]"):
        unchanged()


def tell(counts):
    """Write a table of how many cases each entry point takes and refuses."""
    kinds = sorted({kind for _, kind in counts})
    total = Counter()
    for (entry, kind), n in counts.items():
        total[entry, kind] = n
        total["in all", kind] += n
    for entry in [*dict.fromkeys(entry for entry, _ in counts), "in all"]:
        numbers = "  ".join(f"{kind} {total[entry, kind]}" for kind in kinds if total[entry, kind])
        n_cases = sum(total[entry, kind] for kind in kinds)
        sys.stdout.write(f"{entry:45} {n_cases:5}  {numbers}\n")


def main(*patterns):
    """Judge the cases of all groups, or of those with a pattern in their name; exit 1 at faults."""
    torch.set_num_threads(1)
    newcomers.N_STEPS, network.N_EPOCHS = N_STEPS, N_EPOCHS
    counts = Counter()
    with TemporaryDirectory() as folder:
        for name, cases in groups(Path(folder)):
            if not patterns or any(pattern in name for pattern in patterns):
                found, faults = judge_all(cases)
                counts += found
                sys.stdout.write("".join(f"{fault}\n" for fault in faults))
                sys.stdout.flush()
    tell(counts)
    if not patterns and counts.total() < MIN_CASES:
        sys.exit(f"{MIN_CASES} cases are expected")
    sys.exit(any(kind == "FAULT" for _, kind in counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
