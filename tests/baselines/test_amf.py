"""AMF: the steps against those of the article one by one, streams, the normalised scale."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skqos.baselines import AMFRegressor, MedianRegressor
from skqos.baselines.amf import BoxCoxScale, FactorSide, blocks_without_repeats
from skqos.datasets import make_qos


def some_rows(n=200, n_users=7, n_services=9, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(n_users, size=n), rng.integers(n_services, size=n), rng.uniform(0.1, 1, n)


# --- Steps ----------------------------------------------------------------------------------------


def test_blocks_hold_each_row_once_and_no_entity_twice():
    users, services, _ = some_rows()
    blocks = list(blocks_without_repeats(users, services))
    assert sorted(np.concatenate(blocks)) == list(range(len(users)))
    for block in blocks:
        assert len(set(users[block])) == len(set(services[block])) == len(block)
    assert max(map(len, blocks)) > 3


def test_a_block_is_the_steps_of_its_rows_one_after_the_other():
    users, services, values = some_rows()
    model = AMFRegressor(n_factors=3, step_size=2.0, regularization=0.01, error_rate=0.4)
    rng = np.random.RandomState(0)
    sides = [FactorSide(np.empty((0, 3)), np.empty(0)).grown(n, rng) for n in (7, 9)]
    (u, e_u), (s, e_s) = ((side.factors.copy(), side.errors.copy()) for side in sides)
    shares = []
    for block in blocks_without_repeats(users, services):
        model._step(*sides, users[block], services[block], values[block])
        for i, j, r in zip(users[block], services[block], values[block], strict=True):
            g = 1 / (1 + np.exp(-u[i] @ s[j]))
            error = abs(r - g) / r
            w_u, w_s = e_u[i] / (e_u[i] + e_s[j]), e_s[j] / (e_u[i] + e_s[j])
            slope = (g - r) * g * (1 - g) / r**2
            change = 2.0 * slope * (w_u * s[j] @ s[j] + w_s * u[i] @ u[i])
            shares.append(min(1, abs((np.log(r / (1 - r)) - u[i] @ s[j]) / change)))
            slope *= shares[-1]
            e_u[i] = 0.4 * w_u * error + (1 - 0.4 * w_u) * e_u[i]
            e_s[j] = 0.4 * w_s * error + (1 - 0.4 * w_s) * e_s[j]
            u[i], s[j] = (
                u[i] - 2.0 * (w_u * slope * s[j] + 0.01 * u[i]),
                s[j] - 2.0 * (w_s * slope * u[i] + 0.01 * s[j]),
            )
    for side, factors, errors in zip(sides, (u, s), (e_u, e_s), strict=True):
        assert_allclose(side.factors, factors, rtol=1e-10)
        assert_allclose(side.errors, errors, rtol=1e-10)
    assert 0 < np.mean(np.array(shares) < 1) < 0.9


@pytest.mark.parametrize(
    "y_of",
    [
        lambda X: np.ones(len(X)),
        lambda X: np.where(X.sum(axis=1) % 2, 1.0, 2.0),
        lambda X: np.where(X[:, 1] < 20, 0.1, 1.0 + X[:, 1]),
        lambda X: 100 + 0.01 * (X[:, 1] % 3),
    ],
    ids=["constant", "two values", "equal minima", "little spread"],
)
def test_values_of_little_spread_are_learnt(y_of):
    """Without a limit of the steps, the factors grow until all slopes are 0."""
    X = np.argwhere(np.random.default_rng(0).uniform(size=(20, 30)) < 0.5)
    y = y_of(X)
    model = AMFRegressor(random_state=0).fit(X, y)
    error, of_median = np.abs([model.predict(X) - y, np.median(y) - y]).mean(axis=1)
    assert error <= max(0.3 * of_median, 0.02)
    assert max(np.abs(model.user_factors_).max(), np.abs(model.service_factors_).max()) < 3


def test_a_larger_error_does_not_end_the_iterations(monkeypatch):
    """Errors of 4, 5, 3, 3: the last two are equal."""
    errors = iter([4.0, 5.0, 3.0, 3.0])
    monkeypatch.setattr(AMFRegressor, "_step", lambda *_: next(errors))
    assert AMFRegressor().fit([[0, 0], [1, 1]], [1.0, 2.0]).n_iter_ == 4


def test_it_is_better_than_the_median_of_the_service():
    data = make_qos(60, 80, density=0.5, timeout_rate=0.0, random_state=0)
    train, test = np.split(np.random.default_rng(0).permutation(len(data.y)), [1500])
    errors = [
        np.abs(model.fit(data.X[train], data.y[train]).predict(data.X[test]) - data.y[test]).mean()
        for model in (AMFRegressor(random_state=0), MedianRegressor())
    ]
    assert errors[0] < errors[1]


# --- The scale ------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, -0.007, 0.5, -0.5])
@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_the_scale_goes_back_and_forth(power, shift):
    y = np.random.default_rng(0).lognormal(size=100) + shift
    scale = BoxCoxScale.fit(y, power)
    shares = scale.transform(y)
    assert shares.min() == pytest.approx(0.1)
    assert shares.max() == 1.0
    # The smallest value is moved up to a thousandth of the mean.
    assert_allclose(scale.inverse_transform(shares), y, rtol=1e-6, atol=0.005)
    assert_allclose(scale.transform(np.array([-1e9, 1e9])), [0.1, 1.0])


@pytest.mark.parametrize("power", [1e-17, -1e-15, 1e-12])
def test_a_power_near_0_is_the_logarithm(power):
    y = np.random.default_rng(0).lognormal(size=100)
    shares = np.linspace(0.1, 1, 9)
    found, expected = (BoxCoxScale.fit(y, p).inverse_transform(shares) for p in (power, 0.0))
    assert_allclose(found, expected, rtol=1e-2)


def test_the_unit_of_y_does_not_matter():
    data = make_qos(20, 30, density=0.5, random_state=0)
    expected = AMFRegressor(max_iter=10, random_state=0).fit(data.X, data.y).predict(data.X)
    found = AMFRegressor(max_iter=10, random_state=0).fit(data.X, 1000 * data.y).predict(data.X)
    assert_allclose(found, 1000 * expected, rtol=1e-6)


# --- Streams --------------------------------------------------------------------------------------


@pytest.fixture
def data():
    return make_qos(20, 30, density=0.5, random_state=0)


def test_the_first_rows_are_a_fit(data):
    fitted = AMFRegressor(max_iter=10, random_state=0).fit(data.X, data.y)
    updated = AMFRegressor(max_iter=10, random_state=0).partial_fit(data.X, data.y)
    assert_array_equal(updated.predict(data.X), fitted.predict(data.X))


def test_it_follows_a_change(data):
    model = AMFRegressor(max_iter=10, random_state=0).fit(data.X, data.y)
    before = model.predict(data.X).mean()
    assert model.partial_fit(data.X, np.minimum(3 * data.y, 20)) is model
    assert model.predict(data.X).mean() > 1.5 * before


def test_new_ids_are_learnt_and_known_ones_keep_their_place(data):
    model = AMFRegressor(max_iter=10, random_state=0).fit(data.X, data.y)
    unknown = model.predict([[900, 901]])
    model.partial_fit([[900, 3], [4, 901], [900, 901]], [20.0, 20.0, 20.0])
    assert model.is_known([[900, 901]]).all()
    assert model.user_factors_.shape == (21, 10)
    assert model.service_factors_.shape == (len(model.services_.ids_), 10)
    assert model.predict([[900, 901]]) > unknown


def test_new_users_of_different_updates_start_differently(data):
    """Also with an int as `random_state`: equal factors would stay equal."""
    model = AMFRegressor(step_size=1e-12, regularization=0.0, random_state=0)
    model.fit(data.X, data.y)
    for user in (900, 901, 902):
        model.partial_fit([[user, 3]], [1.0])
    factors = model.user_factors_
    assert len(np.unique(factors.round(6), axis=0)) == len(factors)


def test_the_state_before_an_update_is_not_changed(data):
    model = AMFRegressor(max_iter=10, random_state=0).fit(data.X, data.y)
    state = model._state
    factors = state.attributes["_user_side"].factors.copy()
    model.partial_fit(data.X, 2 * data.y)
    assert_array_equal(state.attributes["_user_side"].factors, factors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, y[:-1]), "inconsistent numbers"),
        (lambda X, y: (X.astype(str), y), "user ids are of kind string"),
        (lambda X, y: (X, np.full(len(y), np.nan)), "NaN"),
        (lambda X, y: (X[:, :1], y), "X has 1 features"),
    ],
)
def test_bad_updates_raise_and_change_nothing(data, change, message):
    model = AMFRegressor(max_iter=10, random_state=0).fit(data.X, data.y)
    before = dict(vars(model))
    with pytest.raises(ValueError, match=message):
        model.partial_fit(*change(data.X, data.y))
    assert vars(model) == before


def test_values_above_a_constant_negative_y():
    X = np.array([[0, 0], [1, 1], [0, 1]])
    model = AMFRegressor(max_iter=2, random_state=0).fit(X, np.full(3, -5.0))
    model.partial_fit(X[:2], [4.0, -10.0])
    assert np.isfinite(model.predict(X)).all()
