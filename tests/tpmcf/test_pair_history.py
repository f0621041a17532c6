"""Other measurements of pairs: look-ups against a dictionary of cells, and what is hidden."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skqos.tpmcf import pair_history
from skqos.tpmcf.features import StepCells
from skqos.tpmcf.pair_history import UNMEASURED, PairHistory, find_sorted
from tests.tpmcf.test_estimator import make

SHAPE = N_STEPS, N_USERS, N_SERVICES = 6, 4, 5


def random_cells(share=0.4, shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.argwhere(rng.uniform(size=shape) < share)
    return StepCells(*codes.T, rng.normal(3, 2, len(codes)), shape)


def as_dict(cells):
    columns = cells.users, cells.services, cells.steps, cells.values
    return {
        (user, service, step): value for user, service, step, value in zip(*columns, strict=True)
    }


def slow_look_up(known, user, service, steps, visible, own, n_known, location, scale):
    """Look up one pair; cells (window, 2) and summary (2,)."""
    z = {key: (value - location) / scale for key, value in known.items()}
    cells = [
        (z[user, service, step], 1.0) if is_visible and (user, service, step) in z else (0.0, 0.0)
        for step, is_visible in zip(steps, visible, strict=True)
    ]
    counted = set(range(n_known)) - {own}
    others = [z[user, service, step] for step in counted if (user, service, step) in z]
    return cells, (np.mean(others), np.log1p(len(others))) if others else (0.0, 0.0)


def some_queries(n=300, shape=SHAPE, window=3):
    rng = np.random.default_rng(1)
    n_steps, n_users, n_services = shape
    users, services = rng.integers(UNMEASURED, n_users, n), rng.integers(UNMEASURED, n_services, n)
    steps, n_known = rng.integers(n_steps, size=(n, window)), rng.integers(1, n_steps + 1, size=n)
    own = np.where(rng.uniform(size=n) < 0.5, rng.integers(n_steps, size=n), UNMEASURED)
    return users, services, steps, rng.uniform(size=(n, window)) < 0.8, own, n_known


def check_look_ups(history, known, scales, shape=SHAPE):
    queries = some_queries(shape=shape)
    found = [part[0].numpy() for part in history(*map(torch.tensor, queries))]
    expected = [slow_look_up(known, *query, *scales) for query in zip(*queries, strict=True)]
    for part, of_rows in zip(found, zip(*expected, strict=True), strict=True):
        assert_allclose(part, of_rows, rtol=1e-5, atol=1e-6)
    assert len(np.unique(found[1][:, 1])) > 2


def scales_of(cells):
    return cells.values.mean(), cells.values.std()


@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
def test_look_ups_are_those_of_a_dictionary(share):
    cells = random_cells(share)
    check_look_ups(PairHistory(cells), as_dict(cells), scales_of(cells))


def test_further_cells_may_be_of_new_steps_and_entities_and_replace_earlier_ones():
    """A step is inserted between the first and the second one, another at the end."""
    first = random_cells()
    known_steps = np.array([0, 2, 3, 4, 5, 6])
    later = random_cells(0.3, shape=(8, 5, 7), seed=3)
    history = PairHistory(first)
    history.extend(later, known_steps)
    known = {(u, s, int(known_steps[t])): value for (u, s, t), value in as_dict(first).items()}
    assert known.keys() & as_dict(later).keys()
    check_look_ups(history, known | as_dict(later), scales_of(first), later.shape)


@pytest.mark.parametrize("value", [2.0, 0.1, 0.7])
def test_equal_values_have_the_scale_1(value):
    """Also if their mean is another number, by rounding."""
    cells = random_cells(0.7).take(np.arange(57))
    equal = StepCells(cells.steps, cells.users, cells.services, np.full(len(cells), value), SHAPE)
    assert (equal.values.std() > 0) == (value < 1)
    history = PairHistory(equal)
    assert_allclose(history.values, 0, atol=1e-12)
    history.extend(
        StepCells(*np.array([[1], [1], [1]]), np.array([value + 3.0]), SHAPE), np.arange(N_STEPS)
    )
    assert history.values.max() == pytest.approx(3)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 100])
def test_the_search_for_exports_is_that_of_torch(n, monkeypatch):
    values = torch.arange(n) * 3
    wanted = torch.arange(-4, 3 * n + 4).unsqueeze(1)
    expected = find_sorted(values, wanted)
    monkeypatch.setattr(pair_history.torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(find_sorted(values, wanted), expected)


# --- In the estimator -----------------------------------------------------------------------------


def rows_of_pairs(n_steps, seed=0, share=0.6):
    """Every pair has a level of its own, which nothing but its own measurements tells."""
    rng = np.random.default_rng(seed)
    level = np.exp(rng.normal(size=(12, 14)))
    X = np.argwhere(rng.uniform(size=(12, 14, n_steps)) < share)
    return X, level[X[:, 0], X[:, 1]]


LEARNING = {"modules": "pte", "features": ["statistics"], "max_epochs": 15, "batch_size": 64}


def test_levels_of_pairs_are_learnt_from_their_past():
    X, y = rows_of_pairs(7)
    train = X[:, 2] < 6
    errors = [
        np.abs(
            make(**LEARNING, pair_history=history).fit(X[train], y[train]).predict(X[~train])
            - y[~train]
        ).mean()
        for history in (True, False)
    ]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("at_update", [False, True])
def test_a_prediction_does_not_depend_on_the_own_cell(at_update):
    """Neither where it was measured in training nor where an update brought it."""
    X, y = rows_of_pairs(6)
    model = make(**{**LEARNING, "max_epochs": 2}, partial_fit_epochs=0).fit(X, y)
    if at_update:
        X, y = rows_of_pairs(8)
        model.partial_fit(X, y)
    history, before = model.module_.history, model.predict(X)
    has_changed = []
    for user, service, step in X[:: len(X) // 10]:
        own = StepCells(*np.array([[step], [user], [service]]), np.array([3.0]), history.shape)
        model.module_.history = copy.deepcopy(history)
        model.module_.history.extend(own, np.arange(history.shape[0]))
        is_other_step = (X[:, :2] == [user, service]).all(axis=1) & (X[:, 2] != step)
        has_other = np.abs(model.predict(X) - before) > 1e-6
        assert not has_other[~is_other_step].any()
        has_changed += has_other[is_other_step].tolist()
    assert np.mean(has_changed) > 0.8
