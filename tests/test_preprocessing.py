"""ContextJoiner: what it joins, what it refuses, and that it keeps scikit-learn's contract."""

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.estimator_checks import parametrize_with_checks

from skqos.inputs import is_numeric
from skqos.preprocessing import ContextJoiner


@parametrize_with_checks([ContextJoiner()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def users():
    return pd.DataFrame(
        {"country": ["Japan", "Italy", None], "latitude": [35, 41, 60]}, index=[17, 23, 99]
    )


@pytest.fixture
def services():
    return pd.DataFrame(
        {"service_as": pd.Categorical(["AS1", "AS2"]), "secure": [True, False]}, index=[4032, 5]
    )


@pytest.fixture
def X():
    return np.array([[17, 5], [23, 4032], [17, 7], [99, 5]])


def test_values_names_and_dtypes(users, services, X):
    out = ContextJoiner(users, services).fit_transform(X)

    expected = pd.DataFrame(
        {
            "user": [17, 23, 17, 99],
            "service": [5, 4032, 7, 5],
            "user_country": pd.Categorical(["Japan", "Italy", "Japan", None]),
            "user_latitude": [35.0, 41.0, 35.0, 60.0],
            "service_as": pd.Categorical(["AS2", "AS1", None, "AS2"]),
            "service_secure": pd.Categorical([False, True, None, False], categories=[False, True]),
        }
    )
    assert_frame_equal(out, expected)


def test_categories_are_those_of_the_table_whatever_the_rows(users, X):
    joiner = ContextJoiner(users).fit(X)
    assert list(joiner.transform(X[:1])["user_country"].cat.categories) == ["Italy", "Japan"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series(["a", None], dtype="string"), pd.CategoricalDtype),
        (pd.Series(["a", 1], dtype=object), pd.CategoricalDtype),
        (pd.Series([True, None], dtype="boolean"), pd.CategoricalDtype),
        (pd.Series([1, None], dtype="Int64"), np.dtype),
        (pd.Series([1, 2], dtype="uint8"), np.dtype),
        (pd.Series([1.5, np.nan], dtype="float32"), np.dtype),
    ],
)
def test_kind_of_each_dtype(column, expected):
    out = ContextJoiner(column.to_frame("x")).fit_transform([[0, 0], [1, 0]])["user_x"]
    assert isinstance(out.dtype, expected)
    assert expected is not np.dtype or out.dtype == np.float64
    assert out.isna().tolist() == column.isna().tolist()
    assert out[0] == column[0]


def test_unknown_id_gets_nan_after_fit(users, services, X):
    joiner = ContextJoiner(users, services).fit(X)
    out = joiner.transform([[1, 2]])
    assert out.iloc[0, :2].tolist() == [1, 2]
    assert out.iloc[0, 2:].isna().all()


@pytest.mark.parametrize(
    ("n_columns", "names"),
    [
        (2, ["user", "service"]),
        (3, ["user", "service", "time"]),
        (5, ["user", "service", "time", "x3", "x4"]),
    ],
)
def test_names_of_array_columns(users, n_columns, names):
    X = np.full((2, n_columns), 17)
    joiner = ContextJoiner(users)
    out = joiner.fit_transform(X)
    assert out.columns.tolist() == [*names, "user_country", "user_latitude"]
    assert joiner.get_feature_names_out().tolist() == out.columns.tolist()
    assert joiner.n_features_in_ == n_columns
    assert not hasattr(joiner, "feature_names_in_")


def test_frame_keeps_names_index_and_dtypes(users, X):
    frame = pd.DataFrame(X, columns=["who", "what"], index=[3, 3, 8, 1]).assign(hour=1.5)
    joiner = ContextJoiner(users)
    out = joiner.fit_transform(frame)
    assert_frame_equal(out[["who", "what", "hour"]], frame)
    assert out["user_latitude"].tolist() == [35, 41, 35, 60]
    assert joiner.feature_names_in_.tolist() == ["who", "what", "hour"]
    assert joiner.get_feature_names_out().tolist() == out.columns.tolist()


def test_frame_with_integer_names_is_named_like_an_array(users, X):
    frame = pd.DataFrame(X)
    out = ContextJoiner(users).fit_transform(frame)
    assert out.columns[:3].tolist() == ["user", "service", "user_country"]
    assert frame.columns.tolist() == [0, 1]


def test_feature_names_out_takes_the_names_given(users, X):
    joiner = ContextJoiner(users).fit(X)
    assert joiner.get_feature_names_out(["a", "b"]).tolist()[:3] == ["a", "b", "user_country"]
    with pytest.raises(ValueError, match="input_features"):
        joiner.get_feature_names_out(["a"])


@pytest.mark.parametrize("dtype", [float, object, np.int8, "category"])
def test_integer_ids_match_in_any_number_type(dtype):
    users = pd.DataFrame({"x": [1.0, 2.0]}, index=[3, 7])
    X = pd.DataFrame({"user": [7, 3], "service": [0, 0]}).astype(dtype)
    assert ContextJoiner(users).fit_transform(X)["user_x"].tolist() == [2.0, 1.0]


def test_float_array_matches_and_a_fraction_does_not():
    users = pd.DataFrame({"x": [1.0, 2.0]}, index=[3, 7])
    out = ContextJoiner(users).fit_transform([[3.0, 0.5], [3.5, 0.5]])
    np.testing.assert_array_equal(out["user_x"], [1.0, np.nan])


@pytest.mark.parametrize("dtype", ["U", object, "str", "string"])
def test_string_ids(dtype):
    users = pd.DataFrame({"x": [1.0, 2.0]}, index=["u1", "u2"])
    X = np.array([["u2", "s1"], ["u1", "s1"]])
    X = X.astype(dtype) if dtype in ("U", object) else pd.DataFrame(X, dtype=dtype)
    assert ContextJoiner(users).fit_transform(X)["user_x"].tolist() == [2.0, 1.0]


@pytest.mark.parametrize("with_table", [True, False])
def test_nan_passes_as_unknown_and_infinity_raises(users, with_table):
    X = np.array([[17, 5, np.nan], [np.nan, 5, 1.0]])
    joiner = ContextJoiner(users if with_table else None)
    out = np.asarray(joiner.fit_transform(X))
    np.testing.assert_array_equal(out[:, :3].astype(float), X)
    assert not with_table or pd.isna(out[1, 3:]).all()
    with pytest.raises(ValueError, match="infinity"):
        joiner.fit([[np.inf, 5.0]])


def test_identity_without_tables(X):
    joiner = ContextJoiner().fit(X)
    np.testing.assert_array_equal(joiner.transform(X), X, strict=True)
    frame = pd.DataFrame({"user": ["a"], "service": ["b"], "user_x": [np.nan]})
    assert_frame_equal(ContextJoiner().fit_transform(frame), frame)
    assert joiner.get_feature_names_out().tolist() == ["user", "service"]


@pytest.mark.parametrize("with_table", [True, False])
def test_pandas_output_leaves_the_frame_of_the_caller(users, X, with_table):
    frame = pd.DataFrame(X)
    joiner = ContextJoiner(users if with_table else None).set_output(transform="pandas")
    out = joiner.fit_transform(frame)
    assert out.columns.tolist() == joiner.get_feature_names_out().tolist()
    assert frame.columns.tolist() == [0, 1]
    assert with_table is isinstance(out.dtypes.get("user_country"), pd.CategoricalDtype)


def test_inputs_are_not_changed(users, services, X):
    before = users.copy(), services.copy(), X.copy()
    X.flags.writeable = False
    joiner = ContextJoiner(users, services)
    out = joiner.fit_transform(X)
    out["user"] = -1
    out.loc[:, "user_latitude"] = -1.0
    assert joiner.users is users
    assert_frame_equal(users, before[0])
    assert_frame_equal(services, before[1])
    np.testing.assert_array_equal(X, before[2])
    assert joiner.transform(X)["user_latitude"].tolist() == [35, 41, 35, 60]


def test_clone_and_pickle(users, services, X):
    joiner = ContextJoiner(users, services).fit(X)
    expected = joiner.transform(X)
    assert_frame_equal(pickle.loads(pickle.dumps(joiner)).transform(X), expected)
    assert_frame_equal(clone(joiner).fit_transform(X), expected)


def test_pipeline_in_a_grid_search():
    rng = np.random.default_rng(0)
    X = rng.integers(0, [8, 20], size=(400, 2))
    users = pd.DataFrame({"country": list("aabbccdd")})
    services = pd.DataFrame({"load": rng.normal(size=20)})
    y = services["load"].to_numpy()[X[:, 1]] + (users["country"] == "b").to_numpy()[X[:, 0]]
    encode = make_column_transformer(
        (OneHotEncoder(), make_column_selector(dtype_include="category")),
        ("passthrough", ["service_load"]),
    )
    model = make_pipeline(ContextJoiner(users, services), encode, Ridge())
    search = GridSearchCV(model, {"ridge__alpha": [1e-6, 1e3]}, cv=3).fit(X, y)
    assert search.best_params_ == {"ridge__alpha": 1e-6}
    assert search.best_score_ > 0.999


@pytest.mark.parametrize("parameter", ["users", "services"])
def test_table_must_be_a_frame(parameter, X):
    joiner = ContextJoiner(**{parameter: {"country": ["Japan"]}})
    with pytest.raises(TypeError, match=f"{parameter} must be a pandas DataFrame.*got dict"):
        joiner.fit(X)


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ([17, 23, 17], "users: .*the id 17 is repeated"),
        ([17, 23, np.nan], "users: .*got NaN"),
        (pd.MultiIndex.from_tuples([(17, 1), (23, 1), (99, 1)]), "users: .*MultiIndex"),
    ],
)
def test_index_must_name_each_entity_once(users, X, index, match):
    with pytest.raises(ValueError, match=match):
        ContextJoiner(users.set_axis(index)).fit(X)


def test_table_of_another_id_kind_raises_with_examples(users, X):
    table = users.set_axis(["u1", "u2", "u3"])
    match = "users: none of the 3 user ids of X, e.g. 17, is in the index of the table, e.g. 'u1'"
    with pytest.raises(ValueError, match=match):
        ContextJoiner(table).fit(X)
    with pytest.raises(ValueError, match=r"services: none of the 3 service ids .*'5'.* 4032"):
        ContextJoiner(services=pd.DataFrame({"x": [1]}, index=[4032])).fit(X.astype(str))


def test_empty_table_raises(users, X):
    with pytest.raises(ValueError, match=r"users: none of the 3 user ids .*which is empty"):
        ContextJoiner(users.iloc[:0]).fit(X)


def test_column_of_x_and_table_of_the_same_name_raises(users, X):
    frame = pd.DataFrame(X, columns=["user", "service"]).assign(user_country="Peru")
    with pytest.raises(ValueError, match="users: X already has a column named 'user_country'"):
        ContextJoiner(users).fit(frame)


def test_two_table_columns_of_the_same_output_name_raise(users, X):
    with pytest.raises(ValueError, match=r"users: two columns .* 'user_country'"):
        ContextJoiner(users.assign(user_country=1)).fit(X)


@pytest.mark.parametrize(
    "values",
    [pd.to_datetime(["2020-01-01", "2021-01-01", "2020-01-01"]), pd.to_timedelta([1, 2, 1], "D")],
    ids=["dates", "durations"],
)
def test_dates_and_durations_are_categories(users, X, values):
    joined = ContextJoiner(users.assign(since=values)).fit_transform(X)
    assert joined["user_since"].dtype == "category"
    assert set(joined["user_since"].cat.categories) == set(values)


def test_column_of_another_dtype_raises(users, X):
    with pytest.raises(TypeError, match="users: the column 'since' must be numeric or"):
        ContextJoiner(users.assign(since=np.ones(3, dtype=complex))).fit(X)


def test_one_column_is_no_pair(users):
    with pytest.raises(ValueError, match=r"user ids in column 0 .* got 1 column"):
        ContextJoiner(users).fit([[17], [23]])


def test_empty_frame_raises(users):
    with pytest.raises(ValueError, match="X has 0 rows"):
        ContextJoiner(users).fit(pd.DataFrame({"user": [], "service": []}))


def test_columns_may_not_change_after_fit(users, X):
    joiner = ContextJoiner(users).fit(pd.DataFrame(X, columns=["user", "service"]))
    with pytest.raises(ValueError, match="feature names"):
        joiner.transform(pd.DataFrame(X, columns=["service", "user"]))


def test_two_million_rows_take_little_more_memory_than_the_result():
    """Categories are copied as codes: a column of strings would take 16 MB, its codes take 2."""
    rng = np.random.default_rng(0)
    users = pd.DataFrame({f"c{i}": rng.integers(0, 30, 339).astype(str) for i in range(5)})
    services = pd.DataFrame({f"n{i}": rng.random(5825) for i in range(6)})
    pairs = np.divmod(np.arange(339 * 5825), 5825)
    X = np.column_stack(pairs)
    joiner = ContextJoiner(users, services).fit(X)

    tracemalloc.start()
    out = joiner.transform(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert out.shape == (1_974_675, 13)
    assert out.memory_usage().sum() < 140e6
    assert peak < 200e6
    assert out["user_c0"].iloc[-1] == users["c0"].iloc[-1]
    assert out["service_n5"].iloc[-1] == services["n5"].iloc[-1]


def test_ids_of_another_kind_than_those_of_the_table_are_refused(users, X):
    joiner = ContextJoiner(users).fit(X)
    with pytest.raises(ValueError, match=r"user ids of X are of kind string .*'17'.* number .*17"):
        joiner.transform(X.astype(str))


def test_a_table_of_values_that_are_no_labels_is_refused(users, X):
    with pytest.raises(
        TypeError, match="users: the column 'since' contains values that are not lab"
    ):
        ContextJoiner(users.assign(since=[[1], [2], [3]])).fit(X)


def test_missing_ids_beside_large_ones_are_unknown(users):
    table = users.set_axis([2**53, 2**53 + 1, 2**70], axis=0)
    X = [[2**53 + 1, 1], [None, 1], [2**70, 1], [2**70 + 1, 1]]
    out = ContextJoiner(table).fit_transform(X)["user_latitude"]
    np.testing.assert_array_equal(out, [41, np.nan, 60, np.nan])


def test_an_error_of_a_further_fit_leaves_the_first_one(users, X):
    joiner = ContextJoiner(users).fit(X)
    expected = joiner.transform(X)
    for wrong in (np.array([[997, 1, 0], [998, 2, 0]]), np.array([["a", "b", "c"]])):
        with pytest.raises(ValueError, match="users"):
            joiner.fit(wrong)
        assert_frame_equal(joiner.transform(X), expected)


def test_objects_that_are_numbers_are_numeric_as_in_x(users, X):
    """A table and X, as a DataFrame, have the same rule."""
    rtt = pd.Series(np.linspace(1, 2, len(users)), users.index).astype(object)
    rtt.iloc[0] = None
    joined = ContextJoiner(pd.DataFrame({"rtt": rtt})).fit(X).transform(X)["user_rtt"]
    assert joined.dtype == np.float64
    assert is_numeric(pd.Series([1.5, None], dtype=object))
