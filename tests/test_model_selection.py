"""The splitters: how many rows train, which ones test, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_validate

from skqos.model_selection import DensitySplit, SlotSplit


@pytest.fixture
def X():
    """80 % of the cells of a 20 x 50 matrix, every user and service among them, shuffled."""
    rng = np.random.default_rng(0)
    cells = rng.permutation(1000)[:800]
    return np.column_stack(np.divmod(cells, 50))


def split_once(X, **params):
    return next(DensitySplit(1, random_state=0, **params).split(X))


@pytest.mark.parametrize("density", [0.001, 0.025, 0.1, 0.799])
def test_training_rows_are_a_share_of_all_cells(X, density):
    train, test = split_once(X, density=density)
    assert len(train) == round(density * 1000)
    np.testing.assert_array_equal(np.sort(np.append(train, test)), np.arange(800))


def test_ids_are_labels_not_positions(X):
    assert len(split_once(X * [7, -3], density=0.1)[0]) == 100


def test_given_matrix_size_counts_absent_ids(X):
    train, _ = split_once(X, density=0.1, n_users=30, n_services=60)
    assert len(train) == 180


def test_time_steps_multiply_the_cells(X):
    X = np.column_stack([X, np.arange(800) % 2])
    assert len(split_once(X, density=0.1, n_time_steps=4)[0]) == 400
    assert len(split_once(X, density=0.1)[0]) == 100


def test_frames_with_string_ids_split_like_arrays(X):
    frame = pd.DataFrame(X, columns=["user", "service"], index=range(800, 0, -1))
    frame = frame.astype(str).assign(user_country="Peru")
    for from_frame, from_array in zip(split_once(frame), split_once(X), strict=True):
        np.testing.assert_array_equal(from_frame, from_array)
    np.testing.assert_array_equal(split_once(X.tolist())[0], split_once(X)[0])


@pytest.mark.parametrize(
    ("test_size", "n_test"), [(7, 7), (np.int64(700), 700), (0.1, 70), (1.0, 700), (1e-6, 1)]
)
def test_test_size_takes_some_of_the_rest(X, test_size, n_test):
    train, test = split_once(X, density=0.1, test_size=test_size)
    assert len(test) == n_test == len(np.unique(test))
    assert not np.intersect1d(train, test).size


def test_draws_are_independent_and_repeatable(X):
    splitter = DensitySplit(3, density=0.1, random_state=0)
    first, again = list(splitter.split(X)), list(splitter.split(X))
    assert len(first) == splitter.get_n_splits(X) == 3
    for (train, test), (train_again, test_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(train, train_again)
        np.testing.assert_array_equal(test, test_again)
    assert not np.array_equal(first[0][0], first[1][0])
    other = split_once(X, density=0.1)[0], next(splitter.split(X))[0]
    np.testing.assert_array_equal(*other)


def test_other_seed_other_rows(X):
    a, b = (next(DensitySplit(1, random_state=seed).split(X))[0] for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_every_row_is_drawn_equally_often(X):
    counts = np.zeros(800)
    for train, _ in DensitySplit(400, density=0.2, random_state=0).split(X):
        counts[train] += 1
    # Each count is binomial(400, 1/4): mean 100, standard deviation 8.66.
    assert counts.mean() == 100
    assert counts.std() == pytest.approx(8.66, rel=0.1)


def test_works_as_cv(X):
    y = X[:, 1] / 10.0
    cv = DensitySplit(2, density=0.1, test_size=50, random_state=0)
    results = cross_validate(DummyRegressor(), X, y, cv=cv, return_indices=True)
    assert [len(rows) for rows in results["indices"]["train"]] == [100, 100]
    assert [len(rows) for rows in results["indices"]["test"]] == [50, 50]
    grid = {"strategy": ["mean", "median"]}
    assert GridSearchCV(DummyRegressor(), grid, cv=cv).fit(X, y).n_splits_ == 2


def test_repr_in_the_way_of_scikit_learn():
    text = repr(DensitySplit(3, density=0.1, random_state=0))
    assert text.startswith("DensitySplit(density=0.1, n_services=None, n_splits=3")


def test_too_high_a_density_names_the_largest_that_works(X):
    with pytest.raises(ValueError, match=r"X has 800 rows .* largest possible density is 0\.799\."):
        split_once(X, density=0.8)
    train, test = split_once(X, density=0.799)
    assert (len(train), len(test)) == (799, 1)


def test_named_density_works_after_rounding():
    X = np.column_stack(np.divmod(np.arange(90_000), 300))
    with pytest.raises(ValueError, match="largest possible density") as error:
        split_once(X, density=0.9, n_services=700)
    density = float(str(error.value).rstrip(".").split()[-1])
    train, _ = split_once(X, density=density, n_services=700)
    assert 89_900 < len(train) < 90_000


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"density": 0.0}, r"density must be a float in \(0, 1\); got 0.0"),
        ({"density": 1}, "density must be"),
        ({"density": "2.5%"}, "density must be"),
        ({"density": 1e-4}, "less than one training row; .* at least 0.001"),
        ({"n_users": 19}, "n_users=19, but its column of X has 20 distinct"),
        ({"n_services": 49}, "n_services=49, but its column of X has 50 distinct"),
        ({"n_users": 20.0}, "n_users must be an int >= 1; got 20.0"),
        ({"n_services": 0}, "n_services must be an int >= 1; got 0"),
        ({"n_time_steps": 2}, "X must have at least 3 columns"),
        ({"test_size": 0}, "test_size must be"),
        ({"test_size": 1.5}, "test_size must be"),
        ({"test_size": "half"}, "test_size must be"),
        ({"density": 0.1, "test_size": 701}, "test_size=701 exceeds the 700 rows"),
    ],
)
def test_errors_name_the_parameter(X, params, match):
    with pytest.raises(ValueError, match=match):
        split_once(X, **params)


def test_n_splits_must_be_positive(X):
    with pytest.raises(ValueError, match="n_splits must be an int >= 1; got 0"):
        next(DensitySplit(0).split(X))


def test_ids_alone_are_needed():
    with pytest.raises(ValueError, match=r"X must have at least 2 columns.*\(5, 1\)"):
        split_once(np.zeros((5, 1)))


def test_y_of_another_length_raises(X):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(DensitySplit().split(X, np.zeros(3)))


# --- SlotSplit ----------------------------------------------------------------------------------

SLOTS = np.array([-4, 0, 1, 2, 5, 6, 7, 9, 10, 11])


@pytest.fixture
def timed():
    """60 % of the cells of 10 users x 20 services in 10 slots with gaps, shuffled: 1200 rows."""
    rng = np.random.default_rng(0)
    cells = rng.permutation(2000)[:1200]
    users, services, slots = np.unravel_index(cells, (10, 20, 10))
    return np.column_stack([users, services, SLOTS[slots]])


def slot_splits(X, n_splits=1, **params):
    return list(SlotSplit(n_splits, **{"window": 4, "random_state": 0, **params}).split(X))


def test_imputation_draws_from_the_window_and_tests_the_rest_of_its_last_slot(timed):
    ((train, test),) = slot_splits(timed, density=0.3)
    assert len(train) == round(0.3 * 10 * 20 * 4)
    assert set(timed[train, 2]) == {7, 9, 10, 11}
    at_last = np.flatnonzero(timed[:, 2] == 11)
    np.testing.assert_array_equal(np.union1d(test, np.intersect1d(train, at_last)), at_last)
    assert not np.intersect1d(train, test).size
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(test) > 0)


def test_the_last_split_tests_the_last_slot(timed):
    tested = [set(timed[test, 2]) for _, test in slot_splits(timed, 3, density=0.1)]
    assert tested == [{9}, {10}, {11}]
    trained = [set(timed[train, 2]) for train, _ in slot_splits(timed, 3, density=0.1)]
    assert trained == [{5, 6, 7, 9}, {6, 7, 9, 10}, {7, 9, 10, 11}]


@pytest.mark.parametrize("density", [None, 0.2])
def test_a_forecast_trains_on_the_slots_ahead_and_tests_all_rows(timed, density):
    splits = slot_splits(timed, 2, density=density, forecast=True)
    for (train, test), window, tested in zip(
        splits, ([5, 6, 7, 9], [6, 7, 9, 10]), (10, 11), strict=True
    ):
        rows = np.flatnonzero(np.isin(timed[:, 2], window))
        if density is None:
            np.testing.assert_array_equal(train, rows)
        else:
            assert len(train) == 160
            assert np.isin(train, rows).all()
        np.testing.assert_array_equal(test, np.flatnonzero(timed[:, 2] == tested))


def test_one_slot_is_a_window(timed):
    ((train, test),) = slot_splits(timed, window=1, density=0.1)
    assert (len(train), set(timed[train, 2]), set(timed[test, 2])) == (20, {11}, {11})
    ((train, test),) = slot_splits(timed, window=1, forecast=True)
    assert set(timed[train, 2]) == {10}


def test_as_many_slots_as_there_are(timed):
    assert set(timed[slot_splits(timed, window=10, density=0.1)[0][0], 2]) == set(SLOTS)
    assert len(slot_splits(timed, 10, window=1, density=0.1)) == 10
    assert set(timed[slot_splits(timed, window=9, forecast=True)[0][0], 2]) == set(SLOTS[:-1])


def test_given_matrix_size_counts_ids_absent_from_the_slots(timed):
    ((train, _),) = slot_splits(timed, density=0.1, n_users=15, n_services=30)
    assert len(train) == 180
    of_one_user = timed[(timed[:, 0] == 3) | (timed[:, 2] < 5)]
    ((train, _),) = slot_splits(of_one_user, density=0.02)
    assert len(train) == 16, "the other users are in X, if not in the window"


def test_every_row_of_the_window_is_drawn_equally_often(timed):
    counts = np.zeros(len(timed))
    splitter = SlotSplit(window=4, density=0.15, random_state=np.random.RandomState(0))
    for _ in range(300):
        ((train, _),) = splitter.split(timed)
        counts[train] += 1
    counts = counts[timed[:, 2] >= 7]
    # Each count is binomial(300, p).
    p = 120 / len(counts)
    assert counts.mean() == pytest.approx(300 * p)
    assert counts.std() == pytest.approx(np.sqrt(300 * p * (1 - p)), rel=0.15)


def test_slot_draws_are_repeatable_and_seeded(timed):
    first, again = (slot_splits(timed, 2, density=0.1) for _ in range(2))
    for rows, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(rows[0], same[0])
        np.testing.assert_array_equal(rows[1], same[1])
    other = slot_splits(timed, 2, density=0.1, random_state=1)
    assert not np.array_equal(first[0][0], other[0][0])


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X.astype(float),
        lambda X: X.astype(object),
        lambda X: X.tolist(),
        lambda X: pd.DataFrame(X, columns=["user", "service", "time"], index=X[:, 0]),
        lambda X: pd.DataFrame(X).assign(user_as="AS1").astype({0: str, 1: str}),
    ],
    ids=["float", "object", "list", "DataFrame", "string ids and context"],
)
def test_slots_of_other_containers(timed, convert):
    expected = slot_splits(timed, density=0.1)
    for rows, same in zip(slot_splits(convert(timed), density=0.1), expected, strict=True):
        np.testing.assert_array_equal(rows[0], same[0])
        np.testing.assert_array_equal(rows[1], same[1])


def with_stamps(X, zone=None):
    """Return rows whose slots are hours, some minutes into each."""
    minutes = 60 * X[:, 2] + np.arange(len(X)) % 60
    stamps = pd.Timestamp("2026-10-24 22:00", tz=zone) + pd.to_timedelta(minutes, unit="min")
    return pd.DataFrame(X, columns=["user", "service", "time"]).assign(time=stamps)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("params", [{"density": 0.1}, {"forecast": True}], ids=str)
def test_slots_of_time_stamps(timed, zone, params):
    """As those of integers, also in the night in which clocks change."""
    X = with_stamps(timed, zone)
    expected = slot_splits(timed, 2, **params)
    for rows, same in zip(slot_splits(X, 2, time_step="1h", **params), expected, strict=True):
        np.testing.assert_array_equal(rows[0], same[0])
        np.testing.assert_array_equal(rows[1], same[1])


def test_cells_of_time_stamps(timed):
    params = {"n_splits": 1, "density": 0.1, "n_time_steps": 12, "random_state": 0}
    ((expected, _),) = DensitySplit(**params).split(timed)
    ((train, _),) = DensitySplit(**params, time_step="1h").split(with_stamps(timed))
    np.testing.assert_array_equal(train, expected)


@pytest.mark.parametrize(
    ("splitter", "match"),
    [
        (SlotSplit(density=0.1), "time_step is None.* time_step='1min', which is suitable"),
        (SlotSplit(density=0.1, time_step="soon"), "time_step must be None or a duration"),
        (SlotSplit(density=0.1, time_step=60), "time_step must be None or a duration"),
        (DensitySplit(time_step="1h"), "is used only with n_time_steps"),
        (DensitySplit(n_time_steps=3, time_step="1h"), "n_time_steps=3, but .* has 10 distinct"),
    ],
    ids=str,
)
def test_time_steps_that_do_not_fit(timed, splitter, match):
    with pytest.raises(ValueError, match=match):
        next(splitter.split(with_stamps(timed)))


def test_time_stamps_are_named_as_given(timed):
    X = timed[(timed[:, 2] < 11) | (np.cumsum(timed[:, 2] == 11) == 1)]
    n_rows = np.isin(X[:, 2], [7, 9, 10, 11]).sum()
    with pytest.raises(ValueError, match="all rows of time slot 2026-10-25 09:00:00 for training"):
        slot_splits(with_stamps(X), density=(n_rows - 1) / 800, time_step="1h")
    with pytest.raises(ValueError, match=r"time_step='1h' is for .*\(time\) holds integers"):
        slot_splits(timed, density=0.1, time_step="1h")


def test_slot_split_works_as_cv(timed):
    y = timed[:, 1] / 10.0
    cv = SlotSplit(2, window=3, forecast=True)
    assert cv.get_n_splits(timed) == cv.get_n_splits() == 2
    results = cross_validate(DummyRegressor(), timed, y, cv=cv, return_indices=True)
    for rows, slots in zip(results["indices"]["train"], ({6, 7, 9}, {7, 9, 10}), strict=True):
        assert set(timed[rows, 2]) == slots
    grid = {"strategy": ["mean", "median"]}
    cv = SlotSplit(3, window=3, density=0.1, random_state=0)
    assert GridSearchCV(DummyRegressor(), grid, cv=cv).fit(timed, y).n_splits_ == 3


def test_slot_split_has_the_interface_of_time_series_split():
    names = {name for name in dir(TimeSeriesSplit()) if not name.startswith("_")}
    assert names - set(vars(TimeSeriesSplit())) <= set(dir(SlotSplit()))
    assert repr(SlotSplit(2)).startswith("SlotSplit(density=None, forecast=False, n_services=None")


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"density": None}, "density=None uses all rows .* or set forecast=True"),
        ({"density": 0.0}, r"density must be a float in \(0, 1\); got 0.0"),
        ({"density": 1}, "density must be"),
        (
            {"density": 1e-4},
            "density=0.0001 of 800 cells is less than one training row; .* at least 0.00125",
        ),
        ({"density": 0.7}, "560 training rows, but the window has 476 rows and at least one must"),
        ({"window": 0}, "window must be an int >= 1; got 0"),
        ({"window": 2.0}, "window must be an int >= 1; got 2.0"),
        ({"window": 11}, "needs 11 time slots, but column 2 of X holds 10; .* window is 10"),
        ({"window": 8, "n_splits": 4}, "needs 11 time slots.* largest possible window is 7"),
        (
            {"window": 10, "forecast": True},
            "window=10 with n_splits=1 and forecast=True needs 11 time slots.* window is 9",
        ),
        ({"n_splits": 11}, "needs 14 time slots.* n_splits must be at most 10"),
        ({"n_splits": 10, "forecast": True}, "n_splits must be at most 9"),
        ({"n_splits": 0}, "n_splits must be an int >= 1; got 0"),
        ({"forecast": "yes"}, "forecast must be True or False; got 'yes'"),
        ({"n_users": 9}, "n_users=9, but its column of X has 10 distinct"),
        ({"n_services": 0}, "n_services must be an int >= 1; got 0"),
    ],
    ids=str,
)
def test_slot_split_errors_name_the_parameter(timed, params, match):
    with pytest.raises(ValueError, match=match):
        slot_splits(timed, **{"density": 0.1, **params})


def test_named_density_of_a_forecast_takes_all_rows(timed):
    n_rows = np.isin(timed[:, 2], [6, 7, 9, 10]).sum()
    match = f"520 training rows, but the window has {n_rows} rows; the largest possible"
    with pytest.raises(ValueError, match=match) as error:
        slot_splits(timed, density=0.65, forecast=True)
    density = float(str(error.value).rstrip(".").split()[-1])
    assert len(slot_splits(timed, density=density, forecast=True)[0][0]) == n_rows


def test_a_slot_that_all_trains_raises(timed):
    """Its only row is all but certain to be drawn."""
    X = timed[(timed[:, 2] < 11) | (np.cumsum(timed[:, 2] == 11) == 1)]
    n_rows = np.isin(X[:, 2], [7, 9, 10, 11]).sum()
    with pytest.raises(ValueError, match=r"selected all rows of time slot 11 .* must be smaller"):
        slot_splits(X, density=(n_rows - 1) / 800)


@pytest.mark.parametrize(
    ("time", "match"),
    [
        (3.5, r"column 2 \(time\) must hold integer-valued time steps; found 3\.5"),
        (np.nan, r"column 2 \(time\): row 4 is NaN"),
        ("3", r"column 2 \(time\) mixes ids of type int, str"),
    ],
)
def test_slots_must_be_integers(timed, time, match):
    X = timed.astype(object if isinstance(time, str) else float)
    X[4, 2] = time
    with pytest.raises(ValueError, match=match):
        slot_splits(X, density=0.1)


def test_slots_are_needed(timed):
    with pytest.raises(ValueError, match=r"X must have at least 3 columns.*\(1200, 2\)"):
        slot_splits(timed[:, :2], density=0.1)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(SlotSplit(density=0.1).split(timed, np.zeros(3)))


# --- cells --------------------------------------------------------------------------------------


def repeated(n_columns):
    """5 measurements of each of 10 x 20 (x 4) cells, shuffled."""
    shape = (10, 20, 4)[:n_columns]
    cells = np.indices(shape).reshape(n_columns, -1).T
    return np.random.default_rng(0).permutation(np.repeat(cells, 5, axis=0))


def cells_of(X, rows):
    return set(map(tuple, X[rows].tolist()))


@pytest.mark.parametrize("test_size", [None, 13, 0.3])
@pytest.mark.parametrize("ids", [lambda X: X, lambda X: X.astype(str).astype(object)])
def test_no_cell_is_in_both_parts(test_size, ids):
    X = repeated(2)
    splitter = DensitySplit(2, density=0.5, test_size=test_size, random_state=0)
    for train, test in splitter.split(ids(X)):
        assert len(cells_of(X, train)) == 100
        assert len(train) == 500
        assert not cells_of(X, train) & cells_of(X, test)
        assert len(test) == {None: 500, 13: 13, 0.3: 150}[test_size]


def test_no_cell_of_a_time_step_is_in_both_parts():
    X = repeated(3)
    ((train, test),) = DensitySplit(1, density=0.25, n_time_steps=4, random_state=0).split(X)
    assert len(cells_of(X, train)) == 200
    assert not cells_of(X, train) & cells_of(X, test)
    ((train, test),) = DensitySplit(1, density=0.25, random_state=0).split(X)
    assert len(cells_of(X[:, :2], train)) == 50
    assert not cells_of(X[:, :2], train) & cells_of(X[:, :2], test)
    ((train, test),) = slot_splits(X, window=2, density=0.5)
    assert len(cells_of(X, train)) == 200
    assert not cells_of(X, train) & cells_of(X, test)


def test_rows_are_drawn_one_by_one_where_asked():
    X = repeated(2)
    ((train, test),) = DensitySplit(1, density=0.5, unit="row", random_state=0).split(X)
    assert len(train) == 100
    assert cells_of(X, train) & cells_of(X, test)
    ((train, test),) = slot_splits(repeated(3), window=2, density=0.5, unit="row")
    assert len(train) == 200


def test_too_high_a_density_counts_cells():
    with pytest.raises(ValueError, match="200 training measured cells, but X has 200 measured"):
        split_once(repeated(2), density=0.999)


@pytest.mark.parametrize("splitter", [DensitySplit, SlotSplit])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("random_state", -1),
        ("random_state", np.nan),
        ("random_state", "0"),
        ("random_state", 2**32),
        ("density", np.nan),
        ("density", True),
        ("n_splits", True),
        ("n_splits", np.nan),
        ("n_users", np.nan),
        ("n_services", -3),
        ("unit", "pair"),
        ("unit", None),
    ],
)
def test_bad_parameters_of_splitters_are_named(splitter, name, value):
    params = {"n_splits": 1, "density": 0.1, name: value}
    with pytest.raises(ValueError, match=f"{name} must be"):
        next(splitter(**params).split(repeated(3)))
