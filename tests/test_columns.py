"""Ids and columns, read alike by all estimators, baselines, splitters and the joiner."""

import copy
import datetime
import enum
import functools
import uuid
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.pipeline import make_pipeline

from skqos import SAMoERegressor
from skqos.baselines import MedianRegressor, PMFRegressor, UIPCCRegressor
from skqos.datasets import make_qos
from skqos.model_selection import DensitySplit, SlotSplit
from skqos.preprocessing import ContextJoiner
from tests.common import CONTRACTS

N_USERS, N_SERVICES = 6, 7
TIMED = make_qos(N_USERS, N_SERVICES, density=0.9, n_time_steps=4, random_state=0)
TABLE = pd.DataFrame({"tier": list("aabbab")[:N_USERS]}, index=range(N_USERS))


class Reader:
    """Something that reads X; `n_id_columns` says how many columns are ids and time."""

    def __init__(self, name, read, n_id_columns, made=None):
        self.name, self.read, self.n_id_columns, self.made = name, read, n_id_columns, made

    def frame(self):
        names = ["user", "service", "time"][: self.n_id_columns]
        return pd.DataFrame(TIMED.X[:, : self.n_id_columns], columns=names)


def _fit(make):
    return lambda X: make().fit(X, TIMED.y[: len(X)])


def _split(splitter):
    return lambda X: list(splitter.split(X))


MODELS = [
    *(
        Reader(
            contract.estimator_class.__name__,
            _fit(contract.make),
            2 + contract.temporal,
            contract.make,
        )
        for contract in CONTRACTS
    ),
    Reader("UIPCCRegressor", _fit(UIPCCRegressor), 2, UIPCCRegressor),
    Reader("MedianRegressor", _fit(MedianRegressor), 2, MedianRegressor),
    Reader(
        "PMFRegressor",
        _fit(lambda: PMFRegressor(random_state=0)),
        2,
        lambda: PMFRegressor(random_state=0),
    ),
]
SPLITTERS = [
    Reader("DensitySplit", _split(DensitySplit(1, density=0.2, random_state=0)), 2),
    Reader(
        "DensitySplit in time",
        _split(DensitySplit(1, density=0.1, n_time_steps=4, random_state=0)),
        3,
    ),
    Reader("SlotSplit", _split(SlotSplit(window=2, density=0.3, random_state=0)), 3),
]
JOINERS = [Reader("ContextJoiner", lambda X: ContextJoiner(TABLE).fit_transform(X), 2)]
ALL = [*MODELS, *SPLITTERS, *JOINERS]


def each(readers):
    return pytest.mark.parametrize("reader", readers, ids=lambda reader: reader.name)


# --- names --------------------------------------------------------------------------------------


@each(ALL)
@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize(
    "name", ["time", "Timestamp", "slot", "user_id", "ws_id", "item", "ServiceID"]
)
def test_a_column_named_for_another_place_is_refused(reader, name, position):
    own = {"user_id": 0, "ws_id": 1, "item": 1, "ServiceID": 1}.get(name)
    if own == position:
        pytest.skip("its own place")
    names = list("abc"[: reader.n_id_columns])
    names[position] = name
    with pytest.raises(ValueError, match=rf"{name}.*must be user, then service"):
        reader.read(reader.frame().set_axis(names, axis=1))


@each(ALL)
@pytest.mark.parametrize("name", ["user", "service_id", "item"])
def test_an_id_among_further_columns_is_refused(reader, name):
    frame = reader.frame().rename(columns={"user": "a", "service": "b"}).assign(**{name: 1})
    with pytest.raises(ValueError, match=f"named '{name}'.*must be user, then service"):
        reader.read(frame)


@each(MODELS)
def test_a_time_that_is_not_read_is_refused(reader):
    frame = reader.frame().assign(user_x=1.0, timestamp=1)
    with pytest.raises(ValueError, match="named 'timestamp', which denotes time"):
        reader.read(frame)


def test_the_name_that_the_joiner_gives_to_a_third_column_is_explained():
    pipeline = make_pipeline(ContextJoiner(TABLE), SAMoERegressor())
    with pytest.raises(ValueError, match="ContextJoiner gives the third column of an array"):
        pipeline.fit(TIMED.X, TIMED.y)


def test_a_time_in_the_third_column_passes_splitters_and_joiner():
    frame = pd.DataFrame(TIMED.X, columns=["user", "service", "time"])
    list(DensitySplit(1, density=0.2, random_state=0).split(frame))
    assert list(ContextJoiner(TABLE).fit_transform(frame).columns[:3]) == list(frame)


@each(ALL)
def test_names_without_a_role_are_taken(reader):
    names = ["a", "b", "c"][: reader.n_id_columns]
    frame = reader.frame().set_axis(names, axis=1)
    reader.read(frame)


@each(MODELS)
def test_names_are_checked_again_at_predict(reader):
    """A model fitted without names takes columns by position, but not the swapped ones."""
    model = reader.read(reader.frame().to_numpy())
    with pytest.warns(UserWarning, match="has feature names"):
        model.predict(reader.frame())
    swapped = reader.frame().rename(columns={"user": "service", "service": "user"})
    with (
        pytest.warns(UserWarning, match="has feature names"),
        pytest.raises(ValueError, match="named 'service'"),
    ):
        model.predict(swapped)


@each(ALL)
def test_two_columns_of_one_name_are_refused(reader):
    frame = reader.frame().assign(x=1.0, y=2.0).rename(columns={"y": "x"})
    with pytest.raises(ValueError, match="X has several columns named 'x'"):
        reader.read(frame)


# --- kinds of ids -------------------------------------------------------------------------------


class Plain(enum.Enum):
    A = 1
    B = 2
    C = 3
    D = 4
    E = 5
    F = 6


class Number(enum.IntEnum):
    A = 1
    B = 2
    C = 3
    D = 4
    E = 5
    F = 6


DAY = datetime.datetime(2026, 1, 1, 12, 30)
KINDS = {
    "uint64": [np.uint64(2**63 + k) for k in range(N_USERS)],
    "one large": [*range(N_USERS - 1), 2**63 + 5],
    "one very large": [*range(N_USERS - 1), 2**200],
    "neighbours above 2**53": [2**53 + k for k in range(N_USERS)],
    "neighbours beyond 64 bits": [2**64 + k for k in range(N_USERS)],
    "large and negative": [-(2**70), *range(1, N_USERS - 1), 2**70],
    "str": [f"u{k}" for k in range(N_USERS)],
    "numbers as str": [str(k) for k in range(N_USERS)],
    "bytes": [b"u%d" % k for k in range(N_USERS)],
    "uuid": [uuid.UUID(int=k) for k in range(N_USERS)],
    "date": [DAY.date() + datetime.timedelta(k) for k in range(N_USERS)],
    "datetime": [DAY + datetime.timedelta(k) for k in range(N_USERS)],
    "with a time zone": [
        DAY.replace(tzinfo=datetime.UTC) + datetime.timedelta(k) for k in range(N_USERS)
    ],
    "Timestamp": [pd.Timestamp(DAY) + pd.Timedelta(k, "ns") for k in range(N_USERS)],
    "datetime64": [np.datetime64("2026-01-01") + np.timedelta64(k, "D") for k in range(N_USERS)],
    "timedelta": [datetime.timedelta(k) for k in range(N_USERS)],
    "Timedelta": [pd.Timedelta(k, "ns") for k in range(N_USERS)],
    "Period": list(pd.period_range("2026-01", periods=N_USERS, freq="M")),
    "Decimal": [Decimal(k) / 10 for k in range(N_USERS)],
    "Fraction": [Fraction(k, 3) for k in range(N_USERS)],
    "IntEnum": list(Number),
    "tuple": [(k, "a") for k in range(N_USERS)],
    "fractions as float": [k + 0.5 for k in range(N_USERS)],
    "ints and floats": [0.5, *range(1, N_USERS)],
}


# Other estimators inherit from the same classes what reads ids.
ONE_OF_EACH_BASE = {"EmbeddingMLPRegressor", "TPMCFRegressor", "MedianRegressor"}
FEW_KINDS = ["neighbours beyond 64 bits", "str", "Timestamp", "tuple"]


def labelled(reader, labels):
    """Return X of a reader with given ids of users, as an array of objects."""
    X = reader.frame().to_numpy().astype(object)
    for row, user in enumerate(X[:, 0]):
        X[row, 0] = labels[user]
    return X


@functools.cache
def read_plain(reader):
    """Return what a reader makes of the ids 0, 1, 2; no test changes it."""
    return reader.read(reader.frame().to_numpy())


@pytest.mark.parametrize(
    ("reader", "kind"),
    [
        pytest.param(reader, kind, id=f"{kind}-{reader.name}")
        for reader in [*MODELS, *SPLITTERS]
        for kind in (KINDS if reader.name in ONE_OF_EACH_BASE or reader in SPLITTERS else FEW_KINDS)
    ],
)
def test_ids_of_any_kind_are_exact(reader, kind):
    """Ids in their order: all that is learned is as with 0, 1, 2."""
    X = labelled(reader, KINDS[kind])
    plain = reader.frame().to_numpy()
    as_rows = [list(row) for row in X]
    for given in (X, as_rows):
        made, expected = reader.read(given), read_plain(reader)
        if reader.made is None:
            for rows, same in zip(made[0], expected[0], strict=True):
                np.testing.assert_array_equal(rows, same)
            continue
        assert made.users_.n_entities == N_USERS
        assert sorted(made.users_.ids_) == sorted(KINDS[kind])
        np.testing.assert_array_equal(made.predict(given), expected.predict(plain))
        for row in (0, len(X) - 1):
            alone = made.predict(X[row : row + 1])
            np.testing.assert_allclose(alone, made.predict(X)[row], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_joiner_finds_ids_of_any_kind(kind):
    index = np.empty(N_USERS, dtype=object)
    for k, label in enumerate(KINDS[kind]):
        index[k] = label
    table = TABLE.set_axis(pd.Index(index, dtype=object, tupleize_cols=False), axis=0)
    X = labelled(JOINERS[0], KINDS[kind])
    expected = ContextJoiner(TABLE).fit_transform(JOINERS[0].frame())["user_tier"].tolist()
    assert ContextJoiner(table).fit_transform(X)["user_tier"].tolist() == expected
    assert ContextJoiner(table).fit_transform(X.tolist())["user_tier"].tolist() == expected
    assert ContextJoiner(table).fit(X).transform(X[:1])["user_tier"].tolist() == expected[:1]


BAD = {
    "enum": (list(Plain), "sorted"),
    "complex": ([complex(k) for k in range(N_USERS)], "complex data"),
    "dict": ([{"a": k} for k in range(N_USERS)], "must be"),
    "list": ([[k] for k in range(N_USERS)], "must be"),
    "set": ([{k} for k in range(N_USERS)], "must be"),
    "frozenset": ([frozenset([k]) for k in range(N_USERS)], "must be"),
    "array": ([np.array([k, 1]) for k in range(N_USERS)], "must be"),
    "two kinds": ([*range(N_USERS - 1), "a"], "mixes ids of type int, str"),
    "bool and int": ([*range(N_USERS - 1), True], "mixes ids of type bool, int"),
    "time zones": ([*KINDS["datetime"][1:], KINDS["with a time zone"][0]], "sorted"),
    "large float": ([float(2**53 + 2 * k) for k in range(N_USERS)], "from 9007199254740992 on"),
    "picoseconds": ([np.datetime64(k, "ps") for k in range(1, N_USERS + 1)], "cannot hold exactly"),
    "inf": ([*map(float, range(N_USERS - 1)), np.inf], "inf"),
    "None": ([*range(N_USERS - 1), None], "is NaN; every row needs an id"),
    "NaN": ([*range(N_USERS - 1), np.nan], "is NaN; every row needs an id"),
    "NA": ([*range(N_USERS - 1), pd.NA], "is NaN; every row needs an id"),
    "NaT": ([*KINDS["Timestamp"][1:], pd.NaT], "is NaN; every row needs an id"),
}


@each([*MODELS, *SPLITTERS])
@pytest.mark.parametrize("kind", BAD)
def test_ids_that_are_no_exact_labels_are_refused(reader, kind):
    labels, message = BAD[kind]
    with pytest.raises((ValueError, TypeError), match=message) as error:
        reader.read(labelled(reader, labels))
    assert "column 0 (user)" in str(error.value)


@each(ALL)
@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csr_array, sparse.coo_array])
def test_sparse_input_is_refused(reader, make):
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        reader.read(make(reader.frame().to_numpy()))


@each(ALL)
def test_masked_entries_are_refused(reader):
    X = np.ma.masked_equal(reader.frame().to_numpy(), 3)
    with pytest.raises(ValueError, match="X is a masked array, and its entry"):
        reader.read(X)
    reader.read(np.ma.masked_equal(reader.frame().to_numpy(), -1))


@each(ALL)
def test_rows_of_different_lengths_are_refused(reader):
    rows = reader.frame().to_numpy().tolist()
    with pytest.raises(ValueError, match="rows of different lengths"):
        reader.read([*rows, rows[0][:1]])


@functools.cache
def read_strings_or_numbers(reader, strings):
    """Return what a reader makes of users as strings or numbers; no test changes it."""
    frame = reader.frame()
    return reader.read(frame.assign(user=frame["user"].astype(str)) if strings else frame)


@each(MODELS)
@pytest.mark.parametrize(
    "dtype",
    ["Int64", "UInt8", "float32", "category", "string", "str", "int64[pyarrow]", "string[pyarrow]"],
)
def test_ids_of_any_dtype_of_pandas(reader, dtype):
    pytest.importorskip("pyarrow")
    frame = reader.frame()
    user = frame["user"].astype(str) if "str" in dtype else frame["user"]
    model = reader.read(frame.assign(user=user.astype(dtype)))
    expected = read_strings_or_numbers(reader, "str" in dtype)
    np.testing.assert_array_equal(
        model.predict(frame.assign(user=user)), expected.predict(frame.assign(user=user))
    )


@each(MODELS)
def test_the_kind_of_an_id_is_checked_at_predict(reader):
    model = reader.read(reader.frame().to_numpy())
    X = reader.frame().to_numpy().astype(object)
    X[:, 0] = X[:, 0].astype(str)
    with pytest.raises(ValueError, match="user ids are of kind string"):
        model.predict(X)


def test_times_beyond_64_bits_name_their_column():
    contract = next(contract for contract in CONTRACTS if contract.temporal)
    X = TIMED.X.astype(object)
    X[0, 2] = 2**70
    with pytest.raises(ValueError, match=r"column 2 \(time\) .* at most 64 bits"):
        contract.make().fit(X, TIMED.y)
    with pytest.raises(ValueError, match=r"column 2 \(time\)"):
        next(SlotSplit(density=0.1).split(X))


# --- columns by position ------------------------------------------------------------------------


def with_context(contract):
    frame = pd.DataFrame(TIMED.X[:, : 2 + contract.temporal], columns=contract.id_columns)
    return frame.assign(
        user_country=np.where(frame["user"] % 2, "JP", "IT"),
        service_size=frame["service"] / 3,
        user_secure=frame["user"] > 2,
    )


def newcomers(frame):
    """Rows of users that fit did not see, so that their context is read."""
    return frame.assign(user=frame["user"] + 100, service=frame["service"] + 50)


each_contract = pytest.mark.parametrize(
    "contract", CONTRACTS, ids=lambda contract: contract.estimator_class.__name__
)
WITHOUT_NAMES = {
    "array": lambda frame: frame.to_numpy(dtype=object),
    "rows": lambda frame: [list(row) for row in frame.itertuples(index=False)],
    "tuples": lambda frame: list(frame.itertuples(index=False, name=None)),
    "numbered": lambda frame: frame.set_axis(range(frame.shape[1]), axis=1),
}


@functools.cache
def fit_named(number):
    """Return a contract's estimator that was fitted to a frame; no test changes it."""
    return CONTRACTS[number].make().fit(with_context(CONTRACTS[number]), TIMED.y)


@functools.cache
def update_named(number):
    """Return a copy of it after an update with a frame."""
    frame = newcomers(with_context(CONTRACTS[number]))
    return copy.deepcopy(fit_named(number)).partial_fit(frame, TIMED.y)


@each_contract
@pytest.mark.parametrize("container", WITHOUT_NAMES)
def test_named_columns_are_taken_by_position_later(contract, container):
    frame, strip = with_context(contract), WITHOUT_NAMES[container]
    model = copy.deepcopy(fit_named(CONTRACTS.index(contract)))
    for rows in (frame, newcomers(frame)):
        expected = model.predict(rows)
        with pytest.warns(UserWarning, match="X does not have valid feature names"):
            np.testing.assert_array_equal(model.predict(strip(rows)), expected)
    if hasattr(model, "partial_fit"):
        twin = update_named(CONTRACTS.index(contract))
        with pytest.warns(UserWarning, match="X does not have valid feature names"):
            model.partial_fit(strip(newcomers(frame)), TIMED.y)
        np.testing.assert_array_equal(model.predict(frame), twin.predict(frame))


@each_contract
@pytest.mark.parametrize("container", ["array", "rows"])
def test_unnamed_columns_may_have_names_later(contract, container):
    frame = with_context(contract)
    n = len(contract.id_columns)
    params = {"user_features": [n, n + 2], "service_features": [n + 1]}
    model = contract.make(**params).fit(WITHOUT_NAMES[container](frame), TIMED.y)
    named = contract.make(**params).fit(frame, TIMED.y)
    expected = named.predict(newcomers(frame))
    with pytest.warns(UserWarning, match="X has feature names, but"):
        np.testing.assert_array_equal(model.predict(newcomers(frame)), expected)


def test_expert_shares_take_columns_by_position():
    contract = CONTRACTS[0]
    assert contract.estimator_class is SAMoERegressor
    frame = with_context(contract)
    model = contract.make().fit(frame, TIMED.y)
    expected = model.expert_shares(frame, TIMED.y)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        shares = model.expert_shares(frame.to_numpy(dtype=object), TIMED.y)
    pd.testing.assert_frame_equal(shares, expected)


@each_contract
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("user_country", ["JP"], "'user_country' holds a list in row"),
        ("user_country", {"a": 1}, "'user_country' holds a dict in row"),
        ("user_country", {"JP"}, "'user_country' holds a set in row"),
        ("user_country", np.zeros(2), "'user_country' holds a ndarray in row"),
        ("service_size", np.inf, "'service_size' holds inf"),
        ("service_size", 1j, "'service_size' .* complex"),
    ],
)
def test_context_that_is_no_label_or_number_names_its_column(contract, column, value, message):
    frame = with_context(contract)
    bad = frame.assign(**{column: pd.Series([value] * len(frame), dtype=object)})
    with pytest.raises((ValueError, TypeError), match=message):
        contract.make().fit(bad, TIMED.y)


@each_contract
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("user_country", ["JP"], "'user_country' holds a list"),
        ("user_country", 7, "'user_country' holds numbers such as 7; fit saw strings"),
        ("service_size", "large", "'service_size' held numbers in fit; .* 'large'"),
        ("service_size", 1j, "'service_size'"),
        ("service_size", -np.inf, "'service_size' holds inf"),
    ],
)
def test_context_of_newcomers_has_the_kind_of_fit(contract, column, value, message):
    frame = with_context(contract)
    model = contract.make().fit(frame, TIMED.y)
    bad = newcomers(frame).assign(**{column: pd.Series([value] * len(frame), dtype=object)})
    with pytest.raises((ValueError, TypeError), match=message):
        model.predict(bad)


def test_a_pipeline_takes_rows_of_two_kinds_of_ids():
    frame = pd.DataFrame({"who": list("aabbc"), "what": [7, 8, 7, 9, 8]})
    services = pd.DataFrame({"country": ["JP", "IT", "US"]}, index=[7, 8, 9])
    model = make_pipeline(ContextJoiner(None, services), CONTRACTS[0].make())
    model.fit(frame, [0.3, 0.1, 1.4, 0.2, 0.4])
    with pytest.warns(UserWarning, match="valid feature names"):
        prediction = model.predict([["a", 7]])
    np.testing.assert_allclose(prediction, model.predict(frame[:1]), rtol=1e-6)
