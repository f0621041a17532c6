"""Choices of users against loops over users and draws."""

from itertools import combinations

import numpy as np
import pytest

from skqos.baselines import MedianRegressor
from skqos.metrics import choice_regret, near_best_share
from skqos.metrics._choice import _draw
from tests.common import Cost

BOTH = pytest.mark.parametrize("metric", [choice_regret, near_best_share])


@pytest.fixture
def data():
    """300 rows of 20 users, one with a single row; predictions with ties; 10 % unobserved."""
    rng = np.random.default_rng(0)
    users = np.append(rng.integers(19, size=299), 19)
    y = rng.gamma(1.0, size=300)
    prediction = (y + rng.normal(scale=0.5, size=300)).round(1)
    y[rng.random(300) < 0.1] = np.nan
    y[-1] = 5.0
    return y, prediction, users


def choose_slowly(y, prediction, direction):
    """Return the values of the rows that tie for the best prediction, and the best value."""
    best = min if direction == "minimize" else max
    target = best(prediction)
    return [v for v, p in zip(y, prediction, strict=True) if p == target], best(y)


def groups_of(y, users, min_rows=2):
    for user in sorted(set(users)):
        rows = np.flatnonzero((users == user) & ~np.isnan(y))
        if len(rows) >= min_rows:
            yield rows


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(("relative", "absolute"), [(0.1, 0.0), (0.0, 0.5), (0.3, 0.1)])
def test_choices_among_all_rows_by_loops(data, direction, relative, absolute):
    y, prediction, users = data
    regrets, near, n_tied = [], [], []
    for rows in groups_of(y, users):
        values, best = choose_slowly(y[rows], prediction[rows], direction)
        margin = max(relative * abs(best), absolute)
        regrets.append(np.mean([abs(value - best) for value in values]))
        near.append(np.mean([abs(value - best) <= margin for value in values]))
        n_tied.append(len(values))
    assert len(regrets) == 19
    assert max(n_tied) > 1
    assert choice_regret(y, prediction, users, direction=direction) == pytest.approx(
        np.mean(regrets)
    )
    share = near_best_share(
        y, prediction, users, direction=direction, relative=relative, absolute=absolute
    )
    assert share == pytest.approx(np.mean(near))
    assert 0 < share < 1


def test_draws_tend_to_the_mean_over_all_sets_of_rows(data):
    y, prediction, users = data
    few = np.concatenate([np.flatnonzero(users == user)[:6] for user in range(4)])
    y, prediction, users = y[few], prediction[few], users[few]
    regrets = []
    for rows in groups_of(y, users, min_rows=3):
        of_user = []
        for drawn in combinations(rows, 3):
            drawn = list(drawn)
            values, best = choose_slowly(y[drawn], prediction[drawn], "minimize")
            of_user.append(np.mean(values) - best)
        regrets.append(np.mean(of_user))
    found = choice_regret(y, prediction, users, n_services=3, n_draws=20_000, random_state=0)
    assert found == pytest.approx(np.mean(regrets), rel=0.02)


def test_each_set_of_rows_is_drawn_as_often():
    rows, sizes = np.arange(10, 16), np.array([4, 2])
    drawn, drawn_sizes = _draw(rows, sizes, 2, 60_000, np.random.RandomState(0))
    assert drawn_sizes.tolist() == [2] * 120_000
    sets = np.sort(drawn.reshape(2, 60_000, 2), axis=-1)
    found, counts = np.unique(sets[0], axis=0, return_counts=True)
    assert found.tolist() == [list(pair) for pair in combinations([10, 11, 12, 13], 2)]
    # Six standard deviations of a binomial.
    assert np.abs(counts - 10_000).max() < 6 * np.sqrt(10_000 * 5 / 6)
    np.testing.assert_array_equal(sets[1], np.tile([14, 15], (60_000, 1)))


@BOTH
def test_users_with_too_few_rows_do_not_count(data, metric):
    y, prediction, users = data
    enough = np.isin(users, [u for u in range(20) if (~np.isnan(y[users == u])).sum() >= 12])
    assert 0 < enough.sum() < len(y) - 1
    options = {"n_services": 12, "random_state": 0}
    found = metric(y, prediction, users, **options)
    assert found == metric(y[enough], prediction[enough], users[enough], **options)


@BOTH
def test_seeds(data, metric):
    options = {"n_services": 5, "n_draws": 4}
    first, same = (metric(*data, **options, random_state=1) for _ in range(2))
    assert first == same != metric(*data, **options, random_state=2)
    assert metric(*data, random_state=1) == metric(*data, random_state=2)


@BOTH
def test_the_order_of_rows_does_not_matter(data, metric):
    order = np.random.default_rng(0).permutation(300)
    expected = metric(*data)
    assert metric(*(part[order] for part in data)) == pytest.approx(expected)


def test_the_truth_has_no_regret_and_a_constant_chooses_at_random(data):
    y, _, users = data
    assert choice_regret(y, np.nan_to_num(y), users) == 0.0
    assert near_best_share(y, np.nan_to_num(y), users, relative=0.0) == 1.0
    expected = [y[rows].mean() - y[rows].min() for rows in groups_of(y, users)]
    assert choice_regret(y, np.zeros(300), users) == pytest.approx(np.mean(expected))


def test_margins_of_negative_values():
    """Within 10 % of -10 is up to -9; the wider margin counts."""
    y, prediction, users = [-10.0, -9.5], [1.0, 0.0], ["ann", "ann"]
    assert near_best_share(y, prediction, users) == 1.0
    assert near_best_share(y, prediction, users, relative=0.01) == 0.0
    assert near_best_share(y, prediction, users, relative=0.01, absolute=0.5) == 1.0


@pytest.mark.parametrize("y", [[1.0, 1.1], [0.3, 0.33], [2.0, 2.2]])
def test_a_choice_at_the_margin_is_near_the_best(y):
    """Differences of decimal numbers are rounded."""
    assert near_best_share(y, [2, 1], [0, 0], relative=0.1) == 1.0
    assert near_best_share(y, [2, 1], [0, 0], relative=0.0999) == 0.0


@BOTH
def test_labels_of_any_kind(data, metric):
    y, prediction, users = data
    expected = metric(y, prediction, users)
    for labels in (users.astype(str), users.tolist(), [f"u{u}" for u in users]):
        assert metric(y, prediction, labels) == pytest.approx(expected)
    assert metric(y[:, None], prediction[:, None], users) == expected


@BOTH
@pytest.mark.parametrize("n_services", [None, 2])
def test_calls_do_not_grow_with_the_number_of_users(metric, n_services):
    calls = []
    for n_users in (20, 400):
        users = np.repeat(np.arange(n_users), 4)
        y = np.random.default_rng(0).random(len(users))
        with Cost() as cost:
            metric(y, y, users, n_services=n_services, random_state=0)
        calls.append(cost.calls)
    assert calls[1] < 1.2 * calls[0]


BAD = {
    "NaN": ({"y_pred": [1.0, np.nan, 3.0, 4.0]}, "Input y_pred contains NaN"),
    "infinite": ({"y_true": [1.0, np.inf, 3.0, 4.0]}, "Input y_true contains infinity"),
    "two targets": ({"y_true": np.ones((4, 2))}, "y_true must have one target"),
    "lengths": ({"y_pred": [1.0]}, "y_true has 4, y_pred has 1, users has 4"),
    "few users": ({"users": [1, 1]}, "y_true has 4, y_pred has 4, users has 2"),
    "a missing user": ({"users": [1, 2, None, 2]}, "users: row 2 is NaN"),
    "two kinds": ({"users": [1, 2, "a", 2]}, "users mixes ids of type int, str"),
    "a table": ({"users": np.ones((4, 2))}, "users must be array-like of shape"),
    "no users": ({"users": None}, "users must be array-like of shape"),
    "no choice": ({"users": [1, 2, 3, 4]}, "users: no user has 2 or more rows .* maximum is 1"),
    "nothing observed": ({"y_true": [np.nan] * 4}, "users: no user has 2 .* maximum is 0"),
    "few rows": ({"n_services": 3}, "users: no user has 3 or more rows .* maximum is 2"),
    "one service": ({"n_services": 1}, "'n_services' parameter"),
    "no draws": ({"n_draws": 0}, "'n_draws' parameter"),
    "direction": ({"direction": "up"}, "'direction' parameter"),
    "seed": ({"random_state": "a"}, "'random_state' parameter"),
}


@BOTH
@pytest.mark.parametrize("case", BAD)
def test_bad_input_raises(metric, case):
    bad, message = BAD[case]
    good = {"y_true": [1.0, 2.0, 3.0, 4.0], "y_pred": [1.0, 2.0, 3.0, 4.0], "users": [1, 1, 2, 2]}
    with pytest.raises(ValueError, match=message):
        metric(**{**good, **bad})


@pytest.mark.parametrize("name", ["relative", "absolute"])
def test_margins_are_not_negative(name):
    with pytest.raises(ValueError, match=f"'{name}' parameter of near_best_share"):
        near_best_share([1.0, 2.0], [1.0, 2.0], [1, 1], **{name: -0.1})


def test_the_service_median_on_real_response_times(wsdream1_path):
    """Ten services of a user, 60 draws: 0.196 s are picked, where the best of ten is 0.088 s."""
    train, test = (
        np.loadtxt(wsdream1_path / "splits" / f"rt_{part}_0.025.txt") for part in ("train", "test")
    )
    X, users, y = train[:, :2].astype(int), test[:, 0].astype(int), test[:, 2]
    options = {"n_services": 10, "n_draws": 60, "random_state": 0}
    model = MedianRegressor(by="service").fit(X, train[:, 2])
    prediction = model.predict(test[:, :2].astype(int))
    assert choice_regret(y, prediction, users, **options) == pytest.approx(0.108, abs=0.003)
    near_best = near_best_share(y, prediction, users, absolute=0.05, **options)
    assert near_best == pytest.approx(0.55, abs=0.01)
