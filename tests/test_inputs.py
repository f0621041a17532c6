"""Reading X: the id columns, the context columns, and what is refused."""

import warnings

import numpy as np
import pandas as pd
import pytest

from skqos import SAMoERegressor, UnusedColumnsWarning
from skqos._ids import id_kind
from skqos.inputs import (
    Columns,
    ContextLayout,
    as_frame,
    is_numeric,
    locate_context,
    read_columns,
    role_of,
)

NO_CONTEXT = ContextLayout([], [])


def read_ids(values, n_rows=None):
    """Read `values` as the user column."""
    n_rows = len(values) if n_rows is None else n_rows
    frame = pd.DataFrame({"user": values, "service": np.arange(n_rows)})
    return read_columns(frame, 2, NO_CONTEXT).users


def locate(names, user_features=None, service_features=None, n_id_columns=2):
    return locate_context(pd.Index(names), n_id_columns, user_features, service_features)


# --- as_frame -----------------------------------------------------------------------------------


def test_as_frame_returns_a_dataframe_itself():
    frame = pd.DataFrame({"user": [1], "service": ["a"]})
    assert as_frame(frame, 2, None) is frame


def test_as_frame_numbers_the_columns_of_an_array_and_keeps_its_values():
    frame = as_frame(np.array([[1, "a", None]], dtype=object), 2, None)
    assert list(frame.columns) == [0, 1, 2]
    assert frame.iloc[0, :2].tolist() == [1, "a"]
    assert frame.isna().iloc[0, 2]


@pytest.mark.parametrize("as_type", [np.array, pd.DataFrame])
def test_as_frame_wants_all_id_columns(as_type):
    with pytest.raises(ValueError, match=r"2 feature\(s\) .* minimum of 3 is required"):
        as_frame(as_type([[1, 2]]), 3, SAMoERegressor())


@pytest.mark.parametrize("X", [np.empty((0, 2)), pd.DataFrame({"user": [], "service": []})])
def test_as_frame_wants_a_row(X):
    with pytest.raises(ValueError, match=r"0 sample\(s\) .* minimum of 1 is required"):
        as_frame(X, 2, SAMoERegressor())


@pytest.mark.parametrize("X", [np.arange(3), np.zeros((2, 2, 2))])
def test_as_frame_wants_two_dimensions(X):
    with pytest.raises(ValueError, match=r"2D array|dim 3"):
        as_frame(X, 2, SAMoERegressor())


# --- locate_context -----------------------------------------------------------------------------


def test_prefixes_tell_context_columns_apart():
    names = ["user", "service", "service_as", "user_as", "user_city"]
    assert locate(names) == ContextLayout([3, 4], [2])


def test_id_columns_are_never_context_whatever_their_names():
    assert locate(["user_id", "service_id", "user_as"]) == ContextLayout([2], [])


def test_a_time_column_is_no_context_and_not_unused():
    names = ["user", "service", "user_time", "user_as"]
    assert locate(names, n_id_columns=3) == ContextLayout([3], [])


def test_listed_columns_override_prefixes_in_the_order_listed():
    names = ["user", "service", "user_as", "country", "user_city"]
    assert locate(names, user_features=["country", 2]) == ContextLayout([3, 2], [])


def test_a_list_for_one_side_leaves_the_other_to_its_prefix():
    layout = locate(["u", "s", "user_as", "service_as"], user_features=[])
    assert layout == ContextLayout([], [3])


def test_a_prefixed_column_left_out_by_a_list_is_no_cause_for_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        locate(["user", "service", "user_as", "user_city"], user_features=["user_as"])


def test_unused_columns_are_named_in_the_warning():
    with pytest.warns(UnusedColumnsWarning, match=r"\['city', 4\]"):
        layout = locate(["user", "service", "user_as", "city", 4])
    assert layout == ContextLayout([2], [])


@pytest.mark.parametrize("has_time", [False, True])
def test_the_warning_says_which_estimator_uses_an_unused_time(has_time):
    columns = ["client", "service", "measured_at" if has_time else "user_as", "city"]
    with pytest.warns(UnusedColumnsWarning) as caught:
        locate(columns)
    assert ("Only TPMCFRegressor uses a time" in str(caught[0].message)) == has_time


def test_the_warning_points_at_the_call_of_fit():
    X = np.c_[np.indices((3, 3)).reshape(2, -1).T, np.zeros(9)]
    model = SAMoERegressor(max_epochs=1, refill_ratio=0, pseudo_label_ratio=0)
    with pytest.warns(UnusedColumnsWarning) as caught:
        model.fit(X, np.arange(9.0))
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("user", "user"),
        ("User_ID", "user"),
        (" user index ", "user"),
        ("uid", "user"),
        ("service", "service"),
        ("WS-ID", "service"),
        ("item_id", "service"),
        ("time", "time"),
        ("timestamp", "time"),
        ("Time Slot", "time"),
        ("slot", "time"),
        ("user_country", None),
        ("service_name", None),
        ("service_time", None),
        ("wsdl", None),
        ("a", None),
        ("", None),
        (0, None),
        (("user", "id"), None),
    ],
)
def test_role_of_a_name(name, role):
    assert role_of(name) == role


@pytest.mark.parametrize(
    ("names", "n_id_columns", "named"),
    [
        (["service", "user"], 2, "service"),
        (["Service_ID", "UserID"], 2, "Service_ID"),
        (["service", "service"], 2, "service"),
        (["time", "user", "service"], 3, "time"),
        (["time", "user", "service"], 2, "time"),
        (["a", "timestamp"], 2, "timestamp"),
        (["user", "service", "item"], 3, "item"),
        (["user", "service", "time"], 2, "time"),
        (["a", "b", "user_country", "user_id"], 2, "user_id"),
        (["user", "service", "slot", "time"], 3, "time"),
    ],
)
def test_a_name_of_another_place_is_refused(names, n_id_columns, named):
    order = "user, then service" + ", then time" * (n_id_columns == 3)
    with pytest.raises(ValueError, match=rf"is named '{named}', .*must be {order}, then context"):
        locate(names, n_id_columns=n_id_columns)


@pytest.mark.parametrize(
    ("names", "n_id_columns"),
    [
        (["user", "service"], 2),
        (["uid", "ws_id", "slot"], 3),
        ([0, 1], 2),
        (["a", "b", "c"], 3),
        (["service_name", "user_name"], 2),
        (["who", "what", "user_country", "service_as"], 2),
    ],
)
def test_names_of_no_other_place_are_taken(names, n_id_columns):
    locate(names, n_id_columns=n_id_columns)


def test_a_listed_column_is_context_whatever_its_name():
    assert locate(["user", "service", "user_id"], user_features=["user_id"]).user_columns == [2]


@pytest.mark.parametrize(
    "feature", [2.9, np.float64(2.0), True, np.bool_(True), None, b"city", ("city",)], ids=repr
)
def test_a_listed_column_is_a_name_or_a_position(feature):
    with pytest.raises(TypeError, match=r"user_features: .* is neither the name of a column"):
        locate(["user", "service", "city"], user_features=[feature])


def test_a_string_is_no_list_of_columns():
    with pytest.raises(TypeError, match=r"user_features must be a list of names .* got 'city'"):
        locate(["user", "service", "city"], user_features="city")


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("planet", "'planet' is not in X; its columns are"),
        ("user", "column 0 is not a context column"),
        (1, "column 1 is not a context column"),
        (3, "column 3 is not a context column of X, which has ids in columns 0 to 1 and 3"),
        (-1, "column -1 is not a context column"),
    ],
)
def test_a_listed_column_must_be_a_context_column(feature, message):
    with pytest.raises(ValueError, match=f"service_features: .*{message}"):
        locate(["user", "service", "city"], service_features=[feature])


def test_a_column_describes_one_side_only():
    with pytest.raises(ValueError, match="'city' is in both user_features and service_features"):
        locate(["user", "service", "city"], ["city"], [2])


def test_a_prefixed_column_listed_for_the_other_side_is_in_both():
    with pytest.raises(ValueError, match="'service_as' is in both"):
        locate(["user", "service", "service_as"], user_features=["service_as"])


def test_a_column_listed_twice_is_refused_with_a_reason():
    X = pd.DataFrame({"user": [1, 2], "service": [1, 2], "user_x": [1.0, 2.0]})
    with pytest.raises(ValueError, match="user_x"):
        SAMoERegressor(user_features=["user_x", 2]).fit(X, [1.0, 2.0])


# --- read_columns: ids --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([3, 1], np.int64, [3, 1]),
        (np.array([3, 1], dtype=np.uint8), np.int64, [3, 1]),
        ([3.0, 1.0], np.int64, [3, 1]),
        (np.array([3, 1], dtype=np.float32), np.int64, [3, 1]),
        ([3.5, 1.0], np.float64, [3.5, 1.0]),
        ([True, False], np.int64, [1, 0]),
        (pd.Series([3, 1], dtype=object), np.int64, [3, 1]),
        (pd.Series([3, 1.5], dtype=object), np.float64, [3, 1.5]),
        (pd.array([3, 1], dtype="Int64"), np.int64, [3, 1]),
        (pd.array([3.0, 1.5], dtype="Float64"), np.float64, [3, 1.5]),
        (pd.Categorical([3, 1]), np.int64, [3, 1]),
        (["b", "a"], object, ["b", "a"]),
        (pd.array(["b", "a"], dtype="string"), object, ["b", "a"]),
        (pd.Categorical(["b", "a"]), object, ["b", "a"]),
        (pd.to_datetime(["2026-01-02", "2026-01-01"]), object, None),
    ],
)
def test_ids_of_every_sortable_kind(values, dtype, expected):
    ids = read_ids(values)
    assert ids.dtype == dtype
    assert ids.tolist() == (list(values) if expected is None else expected)


def test_large_integer_ids_stay_exact():
    assert read_ids([2**62 + 1, 2**62]).tolist() == [2**62 + 1, 2**62]


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA])
def test_a_missing_id_names_its_column_and_row(missing):
    values = pd.Series(["a", "b", missing], dtype=object)
    with pytest.raises(ValueError, match=r"column 0 \(user\): row 2 is NaN"):
        read_ids(values)


def test_an_infinite_id_names_its_row():
    with pytest.raises(ValueError, match="row 1 is -inf"):
        read_ids([1.0, -np.inf])


def test_complex_ids_are_refused():
    with pytest.raises(ValueError, match="complex data not supported"):
        read_ids([1j, 2])


def test_ids_of_several_kinds_are_refused():
    with pytest.raises(ValueError, match="mixes ids of type int, str"):
        read_ids(pd.Series([1, "1"], dtype=object))


@pytest.mark.parametrize("value", [{"a": 1}, [1], {1}])
def test_ids_that_are_no_labels_are_refused(value):
    with pytest.raises(TypeError, match="must be a string or a number, not"):
        read_ids(pd.Series([value, value], dtype=object))


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ([1e300, 1.0], 2**53),
        ([1.0, -(2.0**53)], 2**53),
        (np.array([2**24], dtype=np.float32), 2**24),
        (np.array([2**11], dtype=np.float16), 2**11),
        (pd.Series([1, 2.0**53], dtype=object), 2**53),
    ],
    ids=str,
)
def test_floats_that_may_stand_for_several_integers_are_refused(values, limit):
    with pytest.raises(ValueError, match=f"row . is the float .* integers from {limit} on apart"):
        read_ids(values)


def test_duplicated_row_labels_do_not_disturb():
    frame = pd.DataFrame({"user": [5, 6], "service": [7, 8], "user_x": ["a", "b"]}, index=[0, 0])
    columns = read_columns(frame, 2, ContextLayout([2], []))
    assert columns.users.tolist() == [5, 6]
    assert columns.take(np.array([1])).user_context["user_x"].tolist() == ["b"]


# --- read_columns: time and context -------------------------------------------------------------


def test_times_are_read_from_the_third_column_only_where_there_is_one():
    frame = pd.DataFrame([[0, 1, 3.0], [1, 0, 5.0]])
    assert read_columns(frame, 2, NO_CONTEXT).times is None
    times = read_columns(frame, 3, NO_CONTEXT).times
    assert times.dtype == np.int64
    assert times.tolist() == [3, 5]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float64])
def test_times_are_a_copy_that_may_be_written_to(dtype):
    """X may be read-only, as joblib's memory maps are; torch wants contiguous times besides."""
    X = np.array([[0, 1, 3], [1, 0, 5], [2, 0, 4]], dtype=dtype)
    X.flags.writeable = False
    times = read_columns(as_frame(X, 3, SAMoERegressor()), 3, NO_CONTEXT).times
    assert times.dtype == np.int64
    assert times.flags.writeable
    assert times.flags.c_contiguous
    assert not np.shares_memory(times, X)
    times[0] = 9
    assert X[:, 2].tolist() == [3, 5, 4]


@pytest.mark.parametrize(("value", "found"), [(3.5, "3.5"), ("noon", "'noon'")])
def test_times_must_be_whole_numbers(value, found):
    frame = pd.DataFrame({"user": [0, 1], "service": [0, 1], "time": [value, value]})
    message = rf"column 2 \(time\) must hold integer-valued time steps; found {found}"
    with pytest.raises(ValueError, match=message):
        read_columns(frame, 3, NO_CONTEXT)


def test_context_of_an_object_array_gets_the_type_of_its_values():
    frame = pd.DataFrame(np.array([[0, 0, 1.5, "a"], [1, 1, 2, "b"]], dtype=object))
    columns = read_columns(frame, 2, ContextLayout([2], [3]))
    assert is_numeric(columns.user_context[2])
    assert not is_numeric(columns.service_context[3])


def test_take_returns_rows_of_every_part():
    columns = Columns(
        users=np.array([1, 2, 3]),
        services=np.array(["a", "b", "c"]),
        times=np.array([7, 8, 9]),
        frame=pd.DataFrame({"user": [1, 2, 3], "service": ["a", "b", "c"], "x": [1.0, 2.0, 3.0]}),
        layout=ContextLayout([2], [], {2: "user_x"}),
    )
    taken = columns.take(np.array([2, 0]))
    assert taken.users.tolist() == [3, 1]
    assert taken.services.tolist() == ["c", "a"]
    assert taken.times.tolist() == [9, 7]
    assert taken.user_context["user_x"].tolist() == [3.0, 1.0]
    assert taken.service_context.shape == (2, 0)


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (np.array([1, 2]), "number"),
        (np.array([1.5]), "number"),
        (np.array(["a"], dtype=object), "string"),
        (np.array([pd.Timestamp(0)], dtype=object), "Timestamp"),
    ],
)
def test_id_kind(ids, kind):
    assert id_kind(ids) == kind


@pytest.mark.parametrize(
    ("column", "numeric"),
    [
        (pd.Series([1, 2]), True),
        (pd.Series([1.5, np.nan]), True),
        (pd.Series([1, None], dtype="Int64"), True),
        (pd.Series([True, False]), False),
        (pd.Series([True, None], dtype="boolean"), False),
        (pd.Series(["a", None]), False),
        (pd.Series([1, 2], dtype=object), True),
        (pd.Series([1, None, 2.5], dtype=object), True),
        (pd.Series([1, "a"], dtype=object), False),
        (pd.Series([None, None], dtype=object), False),
        (pd.Series([1, 2], dtype="category"), False),
    ],
)
def test_which_context_is_numeric(column, numeric):
    assert is_numeric(column) == numeric
