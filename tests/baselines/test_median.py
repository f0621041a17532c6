"""Medians of groups and their fall-backs, against loops."""

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor

from skqos.baselines import MedianRegressor
from tests.common import Cost

# Who answers, in the order of the documentation.
ORDER = {
    "constant": [],
    "user": ["user"],
    "service": ["service"],
    "pair": ["pair", "service", "user"],
}


def predict_slowly(by, X, y, pairs):
    """Take the median of the first group that has rows."""
    predictions = []
    for user, service in pairs:
        groups = {
            "user": X[:, 0] == user,
            "service": X[:, 1] == service,
            "pair": (X[:, 0] == user) & (X[:, 1] == service),
        }
        found = [y[groups[level]] for level in ORDER[by] if groups[level].any()]
        predictions.append(np.median([*found, y][0]))
    return predictions


@pytest.fixture
def rows():
    """200 rows of 12 users and 15 services, pairs repeated up to four times; of any sign."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(12, size=200), rng.integers(15, size=200)])
    return X, rng.normal(size=200)


@pytest.mark.parametrize("by", ORDER)
def test_medians_by_loops(by, rows):
    X, y = rows
    # Users 12 and 13, services 15 and 16 are unknown.
    pairs = np.argwhere(np.ones((14, 17)))
    model = MedianRegressor(by=by).fit(X, y)
    np.testing.assert_array_equal(model.predict(pairs), predict_slowly(by, X, y, pairs))


def test_the_constant_is_that_of_scikit_learn(rows):
    X, y = rows
    expected = DummyRegressor(strategy="median").fit(X, y).predict(X)
    np.testing.assert_array_equal(MedianRegressor(by="constant").fit(X, y).predict(X), expected)


def test_a_time_column_is_not_used(rows):
    X, y = rows
    timed = np.column_stack([X, np.arange(len(X))])
    expected = MedianRegressor(by="pair").fit(X, y).predict(X)
    np.testing.assert_array_equal(MedianRegressor(by="pair").fit(timed, y).predict(timed), expected)


def test_attributes(rows):
    X, y = rows
    model = MedianRegressor(by="pair").fit(X, y)
    assert model.median_ == np.median(y)
    assert model.levels_ == ("pair", "service", "user")
    for k, user in enumerate(model.users_.ids_):
        assert model.user_medians_[k] == np.median(y[X[:, 0] == user])
    users, services = np.divmod(model.pair_codes_, len(model.services_.ids_))
    pairs = np.column_stack([model.users_.ids_[users], model.services_.ids_[services]])
    np.testing.assert_array_equal(pairs, np.unique(X, axis=0))
    np.testing.assert_array_equal(model.pair_medians_, model.predict(pairs))
    assert not hasattr(MedianRegressor().fit(X, y), "pair_medians_")


def test_a_parameter_that_is_set_later_counts_from_the_next_fit_on(rows):
    X, y = rows
    model = MedianRegressor(by="user").fit(X, y)
    expected = model.predict(X)
    np.testing.assert_array_equal(model.set_params(by="pair").predict(X), expected)
    assert (model.fit(X, y).predict(X) != expected).any()


def test_calls_do_not_grow_with_the_number_of_entities():
    calls = []
    for n in (50, 500):
        X = np.column_stack([np.arange(n), np.arange(n)[::-1]])
        with Cost() as cost:
            MedianRegressor(by="pair").fit(X, np.arange(n, dtype=float)).predict(X)
        calls.append(cost.calls)
    assert calls[1] < 1.2 * calls[0]
