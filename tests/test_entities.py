"""Entities: codes, categories, scales, and the newcomers of prediction."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skqos.entities import MAX_DEVIATIONS, UNKNOWN, EntityEncoder, EntityTable, Interactions


def frame(n_rows=None, **columns):
    return pd.DataFrame(columns, index=None if n_rows is None else range(n_rows))


def objects(*values):
    return pd.Series(values, dtype=object)


def fit(ids, **columns):
    ids = np.asarray(ids)
    encoder = EntityEncoder("user")
    codes = encoder.fit(ids, frame(len(ids), **columns))
    return encoder, codes


def categories_of(encoder, ids, **columns):
    """Return the category codes of newcomers, one row per distinct context."""
    return encoder.transform(np.asarray(ids), frame(len(ids), **columns))[1].categories


# --- Codes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[30, 10, 20, 10], [2.5, 0.5, 1.0, 0.5], ["c", "a", "b", "a"]])
def test_codes_follow_the_sorted_ids(ids):
    ids = np.asarray(ids, dtype=object if isinstance(ids[0], str) else None)
    encoder, codes = fit(ids)
    assert codes.tolist() == [2, 0, 1, 0]
    assert codes.dtype == np.int64
    assert list(encoder.ids_) == sorted(set(ids))
    assert encoder.n_entities == 3


def test_numbers_sort_as_numbers():
    assert fit([10, 9, 100])[1].tolist() == [1, 0, 2]


def test_codes_and_table_do_not_depend_on_the_order_of_rows():
    ids = np.array([3, 1, 2, 3, 1])
    context = frame(city=["c", "a", "b", "c", "a"], x=[3.0, 1.0, np.nan, 3.0, 1.0])
    first, second = EntityEncoder("user"), EntityEncoder("user")
    order = np.array([4, 2, 0, 1, 3])
    codes = first.fit(ids, context)
    assert_array_equal(second.fit(ids[order], context.iloc[order]), codes[order])
    assert_array_equal(second.table_.categories, first.table_.categories)
    assert_array_equal(second.table_.numerics, first.table_.numerics)


def test_known_ids_get_their_code_at_transform():
    encoder, _ = fit([30, 10, 20])
    positions, new = encoder.transform(np.array([20, 30]), frame(2))
    assert positions.tolist() == [1, 2]
    assert positions.dtype == np.int64
    assert len(new) == 0


def test_whole_floats_match_integers():
    encoder, _ = fit([3, 5])
    assert encoder.transform(np.array([5.0, 3.0]), frame(2))[0].tolist() == [1, 0]
    assert encoder.transform(np.array([3.0, 3.5]), frame(2))[0].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("fitted", "given", "message"),
    [
        ([17, 18], ["17"], r"kind string \(for example 17\); fit saw ids of kind number"),
        (["17", "18"], [17], r"kind number \(for example 17\); fit saw ids of kind string"),
    ],
)
def test_another_kind_of_id_raises(fitted, given, message):
    fitted, given = (
        np.asarray(ids, dtype=object if isinstance(ids[0], str) else None)
        for ids in (fitted, given)
    )
    encoder = EntityEncoder("service")
    encoder.fit(fitted, frame(2))
    with pytest.raises(ValueError, match=f"service ids are of {message}"):
        encoder.transform(given, frame(1))


# --- Categories ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        ["b", "a", "b"],
        objects("b", "a", "b"),
        objects(2, "x", 2),
        pd.Categorical(["b", "a", "b"]),
        pd.Categorical(["b", "a", "b"], categories=["z", "b", "a"]),
        pd.Categorical([2, 1, 2]),
        [True, False, True],
        pd.array([True, False, True], dtype="boolean"),
        pd.array(["b", "a", "b"], dtype="string"),
        pd.to_datetime(["2026-01-02", "2026-01-01", "2026-01-02"]),
    ],
    ids=lambda column: str(getattr(column, "dtype", type(column[0]).__name__)),
)
def test_columns_of_any_kind_but_numbers_are_categories(column):
    encoder, _ = fit([1, 2, 3], place=column)
    codes = encoder.table_.categories[:, 0]
    assert encoder.categorical_ == ["place"]
    assert encoder.numeric_ == []
    assert encoder.n_categories == [2]
    assert codes[0] == codes[2] != codes[1]
    assert set(codes) == {0, 1}
    assert encoder.table_.categories.dtype == np.int64


def test_categories_of_the_dtype_that_no_entity_has_get_no_code():
    encoder, _ = fit([1, 2], place=pd.Categorical(["b", "b"], categories=["a", "b", "c"]))
    assert encoder.n_categories == [1]


MISSING = {
    "object": lambda *values: objects(*values),
    "str": lambda *values: pd.Series(values, dtype="str"),
    "string": lambda *values: pd.array(list(values), dtype="string"),
    "category": lambda *values: pd.Categorical(values),
}


@pytest.mark.parametrize("kind", MISSING)
def test_nan_is_a_category_of_its_own_where_training_has_it(kind):
    make = MISSING[kind]
    encoder, _ = fit([1, 2, 3], place=make("a", None, None))
    codes = encoder.table_.categories[:, 0]
    assert encoder.n_categories == [2]
    assert codes[1] == codes[2] != codes[0]
    assert_array_equal(categories_of(encoder, [8, 9], place=make("a", None))[:, 0], codes[:2])


@pytest.mark.parametrize("kind", MISSING)
def test_nan_is_unknown_where_training_has_none(kind):
    make = MISSING[kind]
    encoder, _ = fit([1, 2], place=make("a", "b"))
    assert categories_of(encoder, [9], place=make(None)).tolist() == [[UNKNOWN]]


def test_missing_values_of_all_kinds_are_one_category():
    encoder, _ = fit([1, 2, 3, 4], place=objects("a", None, np.nan, pd.NA))
    assert encoder.n_categories == [2]
    assert categories_of(encoder, [9], place=objects(pd.NaT)).tolist() == [[1]]


def test_boolean_with_na():
    encoder, _ = fit([1, 2, 3], secure=pd.array([True, False, None], dtype="boolean"))
    assert encoder.n_categories == [3]
    codes = categories_of(encoder, [7, 8, 9], secure=objects(False, True, None))
    assert_array_equal(codes, encoder.table_.categories[[1, 0, 2]])


def test_categories_unseen_in_training_are_unknown():
    encoder, _ = fit([1, 2], place=["a", "b"], planet=["Mars", "Mars"])
    codes = categories_of(encoder, [9], place=["c"], planet=["Mars"])
    assert codes.tolist() == [[UNKNOWN, 0]]


def test_categories_are_listed_in_the_order_of_the_entities():
    encoder, _ = fit([5, 5, 1], place=["b", "b", "a"])
    assert [list(categories) for categories in encoder.categories_] == [["a", "b"]]


# --- Numbers ------------------------------------------------------------------------------------


def test_numbers_are_standardised_over_entities_not_rows():
    encoder, _ = fit([1, 1, 1, 1, 2, 3], x=[10.0, 10.0, 10.0, 10.0, 20.0, 60.0])
    values = np.array([10.0, 20.0, 60.0])
    assert_allclose(encoder.mean_, [30.0])
    assert_allclose(encoder.scale_, [values.std()])
    assert_allclose(encoder.table_.numerics[:, 0], (values - 30) / values.std(), rtol=1e-6)
    assert encoder.table_.numerics.dtype == np.float32


def test_unknown_numbers_stay_nan_and_do_not_enter_mean_and_scale():
    encoder, _ = fit([1, 2, 3], x=[1.0, np.nan, 3.0])
    assert_allclose(encoder.table_.numerics[:, 0], [-1.0, np.nan, 1.0])


@pytest.mark.parametrize("dtype", ["int64", "Int64", "float32", "Float64", "uint8"])
def test_numbers_of_any_dtype(dtype):
    encoder, _ = fit([1, 2], x=pd.array([1, 3], dtype=dtype))
    assert encoder.numeric_ == ["x"]
    assert_allclose(encoder.table_.numerics[:, 0], [-1.0, 1.0])


def test_nullable_integers_with_na_are_numbers():
    encoder, _ = fit([1, 2, 3], x=pd.array([1, None, 3], dtype="Int64"))
    assert_allclose(encoder.table_.numerics[:, 0], [-1.0, np.nan, 1.0])


def test_a_newcomers_numbers_are_on_the_scale_of_training():
    encoder, _ = fit([1, 2], x=[1.0, 3.0])
    _, new = encoder.transform(np.array([9]), frame(x=[6.0]))
    assert_allclose(new.numerics, [[4.0]])


@pytest.mark.parametrize("value", [1e3, 1e39, 1.7e308])
def test_numbers_far_from_those_of_training_are_bounded(value):
    encoder, _ = fit([1, 2], x=[1.0, 3.0])
    _, new = encoder.transform(np.array([8, 9]), frame(x=[value, -value]))
    assert_allclose(sorted(new.numerics[:, 0]), [-MAX_DEVIATIONS, MAX_DEVIATIONS])


@pytest.mark.parametrize("unit", [1e-320, 1e-200, 1.0, 1e200, 5e307])
def test_numbers_of_any_unit_are_standardised(unit):
    encoder, _ = fit([1, 2, 3], x=[unit, 2 * unit, 3 * unit], y=[np.nan, unit, 3 * unit])
    root = np.sqrt(1.5)
    assert_allclose(encoder.table_.numerics.T, [[-root, 0, root], [np.nan, -1, 1]], atol=1e-3)


@pytest.mark.parametrize("value", [7.0, np.nan])
def test_a_constant_or_unknown_column_is_harmless(value):
    encoder, _ = fit([1, 2, 3], x=[value] * 3)
    assert encoder.scale_.tolist() == [1.0]
    assert_array_equal(np.nan_to_num(encoder.table_.numerics), np.zeros((3, 1)))


def test_a_constant_that_binary_numbers_round_is_harmless_too():
    """The mean of seven times 0.7 is not quite 0.7."""
    encoder, _ = fit(np.arange(7), x=[0.7] * 7)
    _, new = encoder.transform(np.array([9]), frame(x=[0.8]))
    assert abs(new.numerics[0, 0]) < 10


def test_infinite_context_raises_at_fit_and_transform():
    message = "Context column 'y' holds inf"
    with pytest.raises(ValueError, match=message):
        fit([1, 2], x=[1.0, 2.0], y=[1.0, -np.inf])
    encoder, _ = fit([1, 2], x=[1.0, 2.0], y=[1.0, 2.0])
    with pytest.raises(ValueError, match=message):
        encoder.transform(np.array([9]), frame(x=[1.0], y=[np.inf]))


def test_without_context_the_table_has_rows_but_no_columns():
    encoder, _ = fit([1, 2, 3])
    assert len(encoder.table_) == 3
    assert encoder.table_.categories.shape == encoder.table_.numerics.shape == (3, 0)
    assert encoder.n_categories == []


# --- One context per id -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        [1.0, np.nan, 1.0, np.nan],
        objects("a", None, "a", np.nan),
        pd.Categorical(["a", None, "a", None]),
        pd.array([1, None, 1, None], dtype="Int64"),
        pd.array(["a", None, "a", None], dtype="string"),
    ],
)
def test_nan_equals_nan_among_the_rows_of_an_id(column):
    encoder, _ = fit([5, 6, 5, 6], x=column)
    assert len(encoder.table_) == 2


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ([1.0, 2.0, 1.0, 3.0], "is 2.0 in one row and 3.0 in another"),
        ([1.0, 2.0, 1.0, np.nan], "is 2.0 in one row and nan in another"),
        (["a", "b", "a", "c"], "is b in one row and c in another"),
        (objects("a", None, "a", "c"), "is (None|nan) in one row and c in another"),
    ],
)
def test_two_contexts_of_an_id_raise(column, values):
    with pytest.raises(ValueError, match=f"user 6 has two contexts: column 'x' {values}"):
        fit([5, 6, 5, 6], ok=[1, 2, 1, 2], x=column)


# --- Newcomers ----------------------------------------------------------------------------------


def test_newcomers_come_after_the_known_and_share_a_row_per_context():
    encoder, _ = fit([1, 2], place=["a", "b"], x=[0.0, 2.0])
    ids = np.array([50, 1, 60, 70, 2, 80])
    context = frame(place=["b", "?", "a", "b", "?", "b"], x=[2.0, 9.0, 2.0, 2.0, 9.0, 0.0])
    positions, new = encoder.transform(ids, context)
    assert positions.tolist() == [2, 0, 3, 2, 1, 4]
    assert new.categories.tolist() == [[1], [0], [1]]
    assert_allclose(new.numerics, [[1.0], [1.0], [-1.0]])


def test_missing_context_is_a_context_that_newcomers_share():
    encoder, _ = fit([1, 2], place=["a", "b"], x=[0.0, 2.0])
    context = frame(place=objects(None, np.nan, None), x=[np.nan, np.nan, 0.0])
    positions, new = encoder.transform(np.array([7, 8, 9]), context)
    assert positions.tolist() == [2, 2, 3]
    assert new.categories.tolist() == [[UNKNOWN], [UNKNOWN]]
    assert_allclose(new.numerics, [[np.nan], [-1.0]])


def test_one_new_id_with_two_contexts_is_two_newcomers():
    encoder, _ = fit([1, 2], place=["a", "b"])
    assert encoder.transform(np.array([9, 9]), frame(place=["a", "b"]))[0].tolist() == [2, 3]


def test_newcomers_without_context_are_all_the_same():
    encoder, _ = fit([1, 2])
    positions, new = encoder.transform(np.array([7, 1, 8]), frame(3))
    assert positions.tolist() == [2, 0, 2]
    assert len(new) == 1


def test_known_ids_add_nothing_whatever_their_context_now():
    encoder, _ = fit([1, 2], place=["a", "b"], x=[0.0, 2.0])
    positions, new = encoder.transform(np.array([2, 1]), frame(place=["?", "a"], x=[5.0, np.inf]))
    assert positions.tolist() == [1, 0]
    assert new.categories.shape == new.numerics.shape == (0, 1)


def test_positions_point_at_the_context_of_each_row():
    rng = np.random.default_rng(0)
    places = np.array(["a", "b", "c", "d"])
    encoder, _ = fit([1, 2, 3], place=["a", "b", "c"], x=[0.0, 1.0, 2.0])
    ids = rng.integers(4, 30, 200)
    context = frame(place=places[rng.integers(4, size=200)], x=rng.integers(3, size=200) * 1.0)
    positions, new = encoder.transform(ids, context)
    assert len(new) == len(context.drop_duplicates())
    rows = positions - 3
    expected = context["place"].map({"a": 0, "b": 1, "c": 2}).fillna(UNKNOWN)
    assert_array_equal(new.categories[rows, 0], expected)
    z = (context["x"] - 1) / np.sqrt(2 / 3)
    assert_allclose(new.numerics[rows, 0], z, rtol=1e-6)


# --- Extended -----------------------------------------------------------------------------------


def test_extending_appends_ids_and_categories_and_leaves_the_rest():
    encoder, _ = fit([3, 5], place=["a", "b"], x=[0.0, 2.0])
    before = dict(vars(encoder))
    context = frame(place=["c", "a", "?", "d"], x=[4.0, 1.0, np.inf, np.nan])
    extended, codes = encoder.extend(np.array([9, 4, 3, 7]), context)
    assert codes.tolist() == [4, 2, 0, 3]
    assert list(extended.ids_) == [3, 5, 4, 7, 9]
    assert list(extended.categories_[0]) == ["a", "b", "d", "c"]
    assert extended.table_.categories.ravel().tolist() == [0, 1, 0, 2, 3]
    assert_allclose(extended.table_.numerics.ravel(), [-1.0, 1.0, 0.0, np.nan, 3.0])
    assert vars(encoder) == before
    assert extended.transform(np.array([7, 8]), frame(place=["?", "c"], x=[0.0, 1.0]))[
        0
    ].tolist() == [
        3,
        5,
    ]


def test_extending_by_known_ids_adds_nothing():
    encoder, _ = fit([3, 5], place=["a", "b"])
    extended, codes = encoder.extend(np.array([5, 5, 3]), frame(place=["c", "d", "c"]))
    assert codes.tolist() == [1, 1, 0]
    assert extended.n_entities == 2
    assert extended.n_categories == [2]


def test_missing_context_of_a_new_id_is_a_category():
    encoder, _ = fit([3, 5], place=["a", "b"])
    extended, _ = encoder.extend(np.array([6, 7]), frame(place=objects(None, np.nan)))
    assert extended.table_.categories.ravel().tolist() == [0, 1, 2, 2]
    again, _ = extended.extend(np.array([8]), frame(place=objects(None)))
    assert again.n_categories == [3]


def test_extending_by_two_contexts_of_an_id_raises():
    encoder, _ = fit([3, 5], place=["a", "b"])
    with pytest.raises(ValueError, match="user 6 has two contexts: column 'place' is a in one row"):
        encoder.extend(np.array([3, 6, 6]), frame(place=["b", "a", "b"]))


# --- Containers ---------------------------------------------------------------------------------


def test_table_take_returns_a_table():
    table = EntityTable(np.array([[1], [2], [3]]), np.array([[0.1], [0.2], [0.3]]))
    taken = table.take(np.array([2, 0]))
    assert len(taken) == 2
    assert taken.categories.tolist() == [[3], [1]]
    assert taken.numerics.tolist() == [[0.3], [0.1]]


def test_length_of_interactions_is_that_of_the_pairs():
    table = EntityTable(np.empty((5, 0)), np.empty((5, 0)))
    assert len(Interactions(np.arange(3), np.arange(3), None, table, table)) == 3
