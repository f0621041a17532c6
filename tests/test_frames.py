"""Frames of other libraries: names, values and context are those of pandas."""

import datetime
import functools

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from skqos._frames import to_frame
from skqos.datasets import make_qos
from skqos.model_selection import DensitySplit
from skqos.preprocessing import ContextJoiner
from tests.common import CONTRACTS, all_estimators

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

DATA = make_qos(12, 15, density=0.6, random_state=0)
TABLES = {
    "users": DATA.users.assign(tier=pd.array([1, None, 3] * 4, dtype="Int64")),
    "services": DATA.services.assign(secure=[True, False, None] * 5),
}


def to_polars(frame):
    """Return a polars frame of the same values; missing ones are null."""
    values = {name: frame[name].astype(object).where(frame[name].notna(), None) for name in frame}
    return pl.DataFrame({name: column.tolist() for name, column in values.items()})


def to_polars_categorical(frame):
    return to_polars(frame).with_columns(pl.col(pl.String).cast(pl.Categorical))


def to_arrow(frame):
    return to_polars(frame).to_arrow()


def to_arrow_with_index(frame):
    """Return a table whose metadata names an index, which pandas would take out of the columns."""
    indexed = frame.set_index(frame.columns[0])
    return pa.Table.from_pandas(indexed, preserve_index=True).select(list(frame.columns))


class OnlyToPandas:
    """A frame of a library that we do not know."""

    def __init__(self, frame):
        self._frame = frame
        self.shape = frame.shape

    columns = property(lambda self: self._frame.columns)

    def __len__(self):
        return len(self._frame)

    def to_pandas(self):
        return self._frame


CONVERSIONS = [to_polars, to_polars_categorical, to_arrow, to_arrow_with_index, OnlyToPandas]
each_library = pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda f: f.__name__)


def joined():
    return ContextJoiner(**TABLES).fit_transform(DATA.X)


@functools.cache
def fit_to_pandas(number):
    """Return a frame, y, and an estimator fitted to them; no test changes them."""
    contract = CONTRACTS[number]
    data = contract.make_data(12, 15, density=0.6)
    frame = ContextJoiner(data.users, data.services).fit_transform(data.X)
    return frame, data.y, contract.make().fit(frame, data.y)


@each_library
@all_estimators
def test_estimators_read_names_and_context(contract, convert):
    frame, y, expected = fit_to_pandas(CONTRACTS.index(contract))
    model = contract.make().fit(convert(frame), y)
    assert model.users_.categorical_ == expected.users_.categorical_
    assert model.users_.numeric_ == expected.users_.numeric_
    assert list(model.feature_names_in_) == list(frame)
    new = frame.assign(user=frame["user"] + 100)
    for rows in (frame, new):
        np.testing.assert_array_equal(model.predict(convert(rows)), expected.predict(rows))
        np.testing.assert_array_equal(model.predict(rows), expected.predict(rows))


@each_library
def test_tables_of_the_joiner(convert):
    """The ids are the column that is named for them, wherever it is, or else the first."""
    users = TABLES["users"].reset_index()
    services = TABLES["services"].reset_index(names="what")
    joiner = ContextJoiner(convert(users[[*users.columns[1:], "user"]]), convert(services))
    made, expected = joiner.fit_transform(DATA.X), joined()
    assert list(made) == list(expected)
    for name in expected:
        assert made[name].isna().tolist() == expected[name].isna().tolist()
        assert made[name].dropna().tolist() == expected[name].dropna().tolist()
        assert isinstance(made[name].dtype, pd.CategoricalDtype) == isinstance(
            expected[name].dtype, pd.CategoricalDtype
        )


@each_library
def test_the_joiner_reads_names(convert):
    frame = pd.DataFrame(DATA.X, columns=["who", "what"])
    joiner = ContextJoiner(DATA.users).fit(convert(frame))
    assert list(joiner.feature_names_in_) == ["who", "what"]
    expected = ContextJoiner(DATA.users).fit_transform(frame)
    made = joiner.transform(convert(frame))
    assert made.astype(object).where(made.notna(), None).to_numpy().tolist() == (
        expected.astype(object).where(expected.notna(), None).to_numpy().tolist()
    )
    assert list(ContextJoiner().fit_transform(convert(frame))) == ["who", "what"]


@each_library
def test_splitters_read_frames(convert):
    frame = pd.DataFrame(DATA.X, columns=["who", "what"])
    made, expected = (
        next(DensitySplit(1, density=0.2, random_state=0).split(X)) for X in (convert(frame), frame)
    )
    np.testing.assert_array_equal(made[0], expected[0])
    with pytest.raises(ValueError, match="named 'service'"):
        next(DensitySplit(1).split(convert(frame.set_axis(["service", "user"], axis=1))))


def test_columns_of_one_name_beside_the_ids_are_refused():
    """A table of pyarrow may have them; the ids are in the first of them."""
    ids, country = pa.array(["ann", "bob"]), pa.array(["x", "y"])
    table = pa.Table.from_arrays([ids, country, country], names=["id", "c", "c"])
    with pytest.raises(ValueError, match="c"):
        ContextJoiner(table).fit([["ann", 1]])
    table = pa.Table.from_arrays([ids, country, country], names=["x", "c", "x"])
    joined = ContextJoiner(table).fit_transform(pd.DataFrame({"user": ["ann"], "service": [1]}))
    assert list(joined)[2:] == ["user_c", "user_x"]


@pytest.mark.parametrize("as_polars", [True, False])
def test_a_pipeline_with_polars_output_keeps_context(as_polars):
    X = to_polars(pd.DataFrame(DATA.X, columns=["user", "service"])) if as_polars else DATA.X
    model = make_pipeline(ContextJoiner(**TABLES), CONTRACTS[0].make())
    expected = model.fit(DATA.X, DATA.y).predict(DATA.X)
    model.set_output(transform="polars").fit(X, DATA.y)
    assert isinstance(model[:-1].transform(X), pl.DataFrame)
    assert "user_country" in model[-1].users_.categorical_
    assert "user_tier" in model[-1].users_.numeric_
    np.testing.assert_array_equal(model.predict(X), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("library", ["polars", "dask"])
def test_lazy_frames_are_refused(library):
    frame = pd.DataFrame(DATA.X, columns=["user", "service"])
    if library == "polars":
        lazy, call = to_polars(frame).lazy(), "collect"
    else:
        lazy = pytest.importorskip("dask.dataframe").from_pandas(frame, npartitions=1)
        call = "compute"
    for read in (
        lambda: CONTRACTS[0].make().fit(lazy, DATA.y),
        lambda: CONTRACTS[0].make().fit(DATA.X, DATA.y).predict(lazy),
        lambda: ContextJoiner(DATA.users).fit(lazy),
        lambda: next(DensitySplit(1).split(lazy)),
    ):
        with pytest.raises(TypeError, match=rf"X is a lazy frame \({library} .*X\.{call}\(\)"):
            read()
    with pytest.raises(TypeError, match=rf"users is a lazy frame .*users\.{call}\(\)"):
        ContextJoiner(lazy).fit(DATA.X)


DAY = datetime.datetime(2026, 1, 1, 12, 30, 0, 7)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([2**64 - 1, 3], pl.UInt64, [2**64 - 1, 3]),
        ([2**64 - 1, None], pl.UInt64, [2**64 - 1, None]),
        ([2**62 + 1, None], pl.Int64, [2**62 + 1, None]),
        ([2**100, None], pl.Int128, [2**100, None]),
        ([1.5, None, float("nan")], pl.Float64, [1.5, None, None]),
        ([True, None], pl.Boolean, [True, None]),
        (["a", None, "b", "a"], pl.String, ["a", None, "b", "a"]),
        (["b", None, "a", "b"], pl.Categorical, ["b", None, "a", "b"]),
        (["b", None], pl.Enum(["a", "b"]), ["b", None]),
        ([None, None], pl.Categorical, [None, None]),
        ([None, None], pl.Null, [None, None]),
        ([b"a", None], pl.Binary, [b"a", None]),
        ([DAY.date()], pl.Date, [DAY.date()]),
        ([DAY, None], pl.Datetime("ns"), [pd.Timestamp(DAY), None]),
        (
            [datetime.timedelta(1, 7)],
            pl.Duration("ms"),
            [pd.Timedelta(1, "D") + pd.Timedelta("7s")],
        ),
    ],
    ids=str,
)
def test_values_of_polars(values, dtype, expected):
    column = to_frame(pl.DataFrame({"x": pl.Series(values, dtype=dtype)}), "X")["x"]
    assert column.isna().tolist() == [value is None for value in expected]
    assert column.dropna().tolist() == [value for value in expected if value is not None]


def test_a_frame_that_needs_pyarrow_in_polars_does_not_here(monkeypatch):
    """Neither `to_pandas` nor `to_arrow` of polars is called."""
    for name in ("to_pandas", "to_arrow"):
        monkeypatch.delattr(pl.DataFrame, name)
        monkeypatch.delattr(pl.Series, name)
    frame = to_polars_categorical(pd.DataFrame({"user": [1, 2], "user_x": ["a", "b"]}))
    assert to_frame(frame, "X")["user_x"].tolist() == ["a", "b"]


def test_a_table_with_two_columns_of_ids_is_refused():
    table = pl.DataFrame({"user": [1], "user_id": [1]})
    with pytest.raises(ValueError, match=r"users: the columns \['user', 'user_id'\] are both"):
        ContextJoiner(table).fit([[1, 2]])


@pytest.mark.parametrize("name", ["user", "user_id", "id", "UserID"])
def test_ids_in_a_column_of_a_pandas_table_are_refused(name):
    table = pd.DataFrame({name: [0, 1], "country": ["JP", "IT"]})
    with pytest.raises(ValueError, match=rf"column '{name}' is named for user ids.*set_index"):
        ContextJoiner(table).fit([[0, 2]])
