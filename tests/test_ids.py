"""Ids as exact labels."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skqos._ids import append_ids, find_ids, id_kind, make_index, read_ids

LABELS = {
    "int": st.integers(-(2**70), 2**70),
    "int64": st.integers(-(2**63), 2**63 - 1).map(np.int64),
    "uint64": st.integers(0, 2**64 - 1).map(np.uint64),
    "float": st.floats(-(2.0**53) + 1, 2.0**53 - 1),
    "number": st.integers(-(2**70), 2**70) | st.floats(-(2.0**52), 2.0**52),
    "str": st.text(),
    "bytes": st.binary(),
    "uuid": st.uuids(),
    "date": st.dates(),
    "datetime": st.datetimes(),
    "timedelta": st.timedeltas(-timedelta(10**5), timedelta(10**5)),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False),
    "fraction": st.fractions(),
    "tuple": st.tuples(st.integers(), st.text()),
}


def as_column(values):
    array = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        array[row] = value
    return pd.Series(array)


@pytest.mark.parametrize("kind", LABELS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_ids_are_found_where_they_are_equal(kind, data):
    """As a dict finds them, whatever else is in the batch that they were read in."""
    known = data.draw(st.lists(LABELS[kind], min_size=1, max_size=8, unique=True))
    new = data.draw(st.lists(LABELS[kind] | st.sampled_from(known), min_size=1, max_size=8))
    places = {value: place for place, value in enumerate(known)}
    index = make_index(read_ids(as_column(known), "X"))
    expected = [places.get(value, -1) for value in new]
    assert find_ids(index, read_ids(as_column(new), "X")).tolist() == expected
    for value, place in zip(new, expected, strict=True):
        assert find_ids(index, read_ids(as_column([value]), "X")).tolist() == [place]
    more = list(dict.fromkeys(value for value in new if value not in places))
    if more:
        index = append_ids(index, read_ids(as_column(more), "X"))
        assert find_ids(index, read_ids(as_column(known), "X")).tolist() == list(places.values())
        found = find_ids(index, read_ids(as_column(more), "X"))
        assert found.tolist() == list(range(len(known), len(index)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8))
def test_integers_are_the_same_in_every_container(values):
    """Also of mixed types of numpy, whose common type would be float."""
    expected = read_ids(as_column(values), "X").tolist()
    assert expected == values
    assert read_ids(pd.Series(np.array(values, dtype=np.uint64)), "X").tolist() == values
    assert read_ids(pd.Series(values, dtype="UInt64"), "X").tolist() == values
    assert read_ids(pd.Series(values, dtype="UInt64").astype("category"), "X").tolist() == values
    mixed = [np.int64(v) if v < 2**63 else np.uint64(v) for v in values]
    assert read_ids(as_column(mixed), "X").tolist() == values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "number"),
        ([1.5], "number"),
        ([2**80], "number"),
        ([1.5, 2**80], "number"),
        ([True], "number"),
        (["a"], "string"),
        ([np.str_("a")], "string"),
        ([b"a"], "bytes"),
        ([pd.Timestamp(0)], "Timestamp"),
        ([np.datetime64(0, "s")], "Timestamp"),
    ],
)
def test_id_kind(values, kind):
    assert id_kind(read_ids(as_column(values), "X")) == kind
