"""Rows left out, quantiles of y on made-up errors, updates."""

import numpy as np
import pytest

from skqos.distribution.bands import KNOWN, NEW_USER
from skqos.distribution.model import (
    ENTITY_SHARE,
    MIN_KEPT_ROWS,
    PAIR_SHARE,
    Calibration,
    Pairs,
    learn_intervals,
    leave_out,
)
from skqos.distribution.quantiles import LEVELS
from skqos.targets import TargetTransform

N_USERS, N_SERVICES = 40, 60
SHAPE = (N_USERS, N_SERVICES)


def _codes(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(N_USERS, size=n), rng.integers(N_SERVICES, size=n)


# --- Rows that a second training leaves out -----------------------------------------------------


def test_some_pairs_users_and_services_are_left_out():
    users, services = _codes()
    left_out = leave_out(users, services, None, np.random.RandomState(0))
    for codes, n in ((users, N_USERS), (services, N_SERVICES)):
        kept = np.unique(codes[~left_out])
        assert len(kept) == n - round(ENTITY_SHARE * n)
    known = np.isin(users, users[~left_out]) & np.isin(services, services[~left_out])
    assert left_out[known].mean() == pytest.approx(PAIR_SHARE, abs=0.03)


def test_rows_of_a_pair_are_left_out_together_and_steps_apart():
    users, services = (np.tile(codes, 2) for codes in _codes(500))
    left_out = leave_out(users, services, None, np.random.RandomState(0))
    np.testing.assert_array_equal(left_out[:500], left_out[500:])
    times = np.repeat([0, 1], 500)
    left_out = leave_out(users, services, times, np.random.RandomState(0))
    assert (left_out[:500] != left_out[500:]).any()


def test_two_entities_stay_at_least():
    users, services = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    for seed in range(20):
        left_out = leave_out(users, services, None, np.random.RandomState(seed))
        # Only pairs may leave.
        assert left_out.sum() <= 1


# --- Learning from errors -----------------------------------------------------------------------


def _problem(seed=0, n=6000):
    """Users differ in how well they are predicted; y is not negative."""
    rng = np.random.default_rng(seed)
    users, services = _codes(n, seed)
    level = 1 + services / N_SERVICES
    spread = np.where(users % 2 == 0, 0.02, 0.2)
    y = level * np.exp(spread * rng.normal(size=n))
    return Pairs(users, services, level[:, None]), y[:, None]


def _learn(pairs, y, **changed):
    transform = TargetTransform(None).fit(y)
    arguments = {
        "times": None,
        "shape": SHAPE,
        "transform": transform,
        "fit_and_predict": lambda kept: pairs.prediction,
        "seed": 0,
    }
    return learn_intervals(pairs, y, **{**arguments, **changed})


@pytest.fixture(scope="module")
def learnt():
    return _learn(*_problem())


def test_intervals_cover_users_that_differ(learnt):
    pairs, y = _problem(seed=1)
    low, high = learnt.quantiles(pairs, np.array([0.05, 0.95]))[:, 0].T
    covered = (y[:, 0] >= low) & (y[:, 0] <= high)
    for steady in (True, False):
        assert covered[(pairs.users % 2 == 0) == steady].mean() == pytest.approx(0.9, abs=0.04)
    widths = high - low
    assert widths[pairs.users % 2 == 1].mean() > 4 * widths[pairs.users % 2 == 0].mean()


def test_probabilities_are_those_that_came_true(learnt):
    pairs, y = _problem(seed=1)
    found = learnt.probability(pairs, np.array([1.5]))[:, 0]
    met = y[:, 0] <= 1.5
    order = np.argsort(found)
    for rows in np.array_split(order, 5):
        assert met[rows].mean() == pytest.approx(found[rows].mean(), abs=0.06)


def test_quantiles_do_not_cross_and_are_not_negative(learnt):
    rng = np.random.default_rng(0)
    pairs = Pairs(rng.integers(99, size=500), rng.integers(99, size=500), rng.normal(size=(500, 1)))
    found = learnt.quantiles(pairs, LEVELS)
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=-1) >= 0).all()
    assert found.min() >= 0


def test_negative_targets_have_negative_quantiles():
    pairs, y = _problem(n=1500)
    shifted = Pairs(pairs.users, pairs.services, pairs.prediction - 1.5)
    found = _learn(shifted, y - 1.5).quantiles(shifted, np.array([0.05]))
    assert found.min() < 0


def test_the_second_training_sees_the_rows_that_stay():
    pairs, y = _problem(n=1500)
    seen = []

    def fit_and_predict(kept):
        seen.append(kept)
        return pairs.prediction

    _learn(pairs, y, fit_and_predict=fit_and_predict)
    (kept,) = seen
    assert 0.5 < len(kept) / len(y) < 0.8
    assert (np.diff(kept) > 0).all()


def test_targets_are_learnt_apart_and_what_was_not_observed_does_not_count():
    pairs, y = _problem(n=3000)
    both = np.concatenate([y, 100 * y], axis=1)
    both[::2, 0] = np.nan
    two = Pairs(pairs.users, pairs.services, pairs.prediction * [[1.0, 100.0]])
    found = _learn(two, both).quantiles(two, np.array([0.05, 0.95]))
    assert found.shape == (3000, 2, 2)
    inside = (both >= found[..., 0]) & (both <= found[..., 1])
    covered = inside.sum(axis=0) / (~np.isnan(both)).sum(axis=0)
    np.testing.assert_allclose(covered, 0.9, atol=0.05)


def test_a_target_that_is_observed_on_one_side_only_raises():
    pairs, y = _problem(n=1500)
    y = np.full_like(y, np.nan)
    y[3] = 1.0
    with pytest.raises(ValueError, match=r"second training that holds out .* Give more"):
        _learn(pairs, y)


# --- Updates ------------------------------------------------------------------------------------


def _calibration(n, kind, value):
    return Calibration(
        np.full(n, float(value)),
        np.full(n, kind, dtype=np.int8),
        np.full((n, len(LEVELS)), value, dtype=np.float32),
    )


def test_later_rows_take_the_place_of_earlier_ones_of_their_kind():
    n = 2 * MIN_KEPT_ROWS
    earlier = _calibration(n, KNOWN, 1).joined(_calibration(5, NEW_USER, 2))
    joined = earlier.joined(_calibration(300, KNOWN, 3))
    assert (joined.group == KNOWN).sum() == n
    assert (joined.prediction == 3).sum() == 300
    assert (joined.prediction == 2).sum() == 5


def test_intervals_follow_a_drift(learnt):
    pairs, y = _problem(seed=2)
    drifted = pairs.prediction + 3 * (y - pairs.prediction)

    def coverage(intervals):
        low, high = intervals.quantiles(pairs, np.array([0.05, 0.95]))[:, 0].T
        return ((drifted[:, 0] >= low) & (drifted[:, 0] <= high)).mean()

    updated = learnt.with_rows(pairs, drifted, SHAPE, pairs)
    assert coverage(learnt) < 0.65
    assert coverage(updated) > 0.85


def test_new_entities_of_an_update_become_known(learnt):
    pairs, y = _problem(seed=2, n=400)
    newcomers = Pairs(pairs.users + N_USERS, pairs.services, pairs.prediction)
    updated = learnt.with_rows(newcomers, y, (2 * N_USERS, N_SERVICES), newcomers)
    (before,), (after,) = learnt.targets, updated.targets
    assert before.users.are_unknown(newcomers.users).all()
    assert not after.users.are_unknown(newcomers.users).any()
    assert (after.calibration.group[-400:] == NEW_USER).all()


def test_an_update_that_observes_nothing_of_a_target_changes_nothing(learnt):
    pairs, y = _problem(seed=2, n=50)
    updated = learnt.with_rows(pairs, np.full_like(y, np.nan), SHAPE, pairs)
    assert updated.targets[0] is learnt.targets[0]
