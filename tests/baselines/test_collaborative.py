"""UIPCC and PMF: their formulas against slow references."""

import numpy as np
import pandas as pd
import pytest

from skqos.baselines import collaborative
from skqos.baselines.collaborative import (
    Neighborhood,
    PMFRegressor,
    UIPCCRegressor,
    pmf_loss,
    share_of_nearest,
    solve_factors,
)
from skqos.factorization import interaction_matrix

# --- UIPCC against the formulas, written out ----------------------------------------------------


@pytest.fixture
def measured():
    """Return a matrix of 9 users and 12 services, NaN where nothing was measured."""
    rng = np.random.default_rng(0)
    matrix = np.where(rng.random((9, 12)) < 0.55, rng.gamma(1.0, size=(9, 12)), np.nan)
    matrix[0] = np.where(np.isnan(matrix[0]), np.nan, 0.1)
    matrix[:, -1] = np.nan
    matrix[[2, 3], -1] = 1.0, 2.0
    return matrix


def cells(matrix):
    X = np.argwhere(~np.isnan(matrix))
    return X, matrix[tuple(X.T)]


def slow_similarity(a, b, significance):
    """Pearson correlation of two rows over their common cells, deviations from all of a row."""
    common = ~np.isnan(a) & ~np.isnan(b)
    n_a, n_b = (~np.isnan(a)).sum(), (~np.isnan(b)).sum()
    if common.sum() < 2 or np.ptp(a[~np.isnan(a)]) == 0 or np.ptp(b[~np.isnan(b)]) == 0:
        return 0.0
    da, db = (a - np.nanmean(a))[common], (b - np.nanmean(b))[common]
    correlation = (da * db).sum() / np.sqrt((da**2).sum() * (db**2).sum())
    weight = 2 * common.sum() / (n_a + n_b) if significance else 1.0
    return max(0.0, correlation * weight)


def slow_side(matrix, row, column, n_neighbors, significance):
    """Predict a cell from rows like its own; return the confidence, too."""
    mean = np.nanmean(matrix[row])
    near = [
        (slow_similarity(matrix[row], matrix[k], significance), k)
        for k in range(len(matrix))
        if k != row and not np.isnan(matrix[k, column])
    ]
    near = sorted(pair for pair in near if pair[0] > 0)[::-1][:n_neighbors]
    if not near:
        return mean, 0.0
    total = sum(similarity for similarity, _ in near)
    step = sum(s * (matrix[k, column] - np.nanmean(matrix[k])) for s, k in near) / total
    prediction = mean + step if mean + step > 0 else mean
    return prediction, sum(s * s for s, _ in near) / total


def slow_uipcc(matrix, row, column, n_neighbors, user_weight, significance, confidence):
    by_users, of_users = slow_side(matrix, row, column, n_neighbors, significance)
    by_services, of_services = slow_side(matrix.T, column, row, n_neighbors, significance)
    total = user_weight * of_users + (1 - user_weight) * of_services
    weight = user_weight * of_users / total if confidence and total > 0 else user_weight
    return weight * by_users + (1 - weight) * by_services


@pytest.mark.parametrize("significance", [False, True])
def test_similarities(measured, significance):
    X, y = cells(measured)
    side = Neighborhood.of(interaction_matrix(*X.T, y, measured.shape))
    expected = [
        [
            0.0 if a == b else slow_similarity(measured[a], measured[b], significance)
            for b in range(9)
        ]
        for a in range(9)
    ]
    np.testing.assert_allclose(side.similarities(np.arange(9), significance), expected, atol=1e-12)
    np.testing.assert_allclose(
        side.similarities(np.array([4, 2]), significance), np.array(expected)[[4, 2]], atol=1e-12
    )
    assert 0.1 < np.mean(np.array(expected) > 0) < 0.9


@pytest.mark.parametrize("n_neighbors", [1, 3, 10])
@pytest.mark.parametrize("user_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("significance", "confidence"), [(False, False), (True, True)])
def test_predictions_of_uipcc(measured, n_neighbors, user_weight, significance, confidence):
    X, y = cells(measured)
    model = UIPCCRegressor(
        n_neighbors=n_neighbors,
        user_weight=user_weight,
        significance_weighting=significance,
        confidence_weighting=confidence,
    ).fit(X, y)
    pairs = np.argwhere(np.ones(measured.shape))
    expected = [
        slow_uipcc(measured, u, s, n_neighbors, user_weight, significance, confidence)
        for u, s in pairs
    ]
    # A measured cell is predicted from the others' values, like any other.
    np.testing.assert_allclose(model.predict(pairs), expected, rtol=1e-9)


@pytest.mark.parametrize("params", [{"user_weight": 5}, {"n_neighbors": 0}])
def test_parameters_that_act_in_predictions_are_checked_there(qos, params):
    model = UIPCCRegressor().fit(qos.X, qos.y).set_params(**params)
    with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter"):
        model.predict(qos.X)


def test_negative_predictions_fall_back_to_the_mean_only_where_y_is_positive():
    X = np.argwhere(np.ones((3, 3)))[:-1]
    y = np.array([1.0, 9.0, 0.5, 1.0, 9.0, 0.5, 2.0, 4.0])
    upcc = UIPCCRegressor(user_weight=1.0)
    assert upcc.fit(X, y).predict([[2, 2]]) == upcc.user_means_[2] == 3.0
    shifted = upcc.fit(X, y - 0.5).predict([[2, 2]])
    np.testing.assert_allclose(shifted, 3.0 - 0.5 + 0.5 - 10.5 / 3)


def test_ties_for_the_last_place_share_it():
    np.testing.assert_allclose(
        share_of_nearest(np.array([[0.4, 0.8, 0.4, 0.4], [0.0, 0.0, 0.3, 0.0]]), 2),
        [[0.4 / 3, 0.8, 0.4 / 3, 0.4 / 3], [0.0, 0.0, 0.3, 0.0]],
    )


def test_blocks_of_similarities_change_nothing(qos, monkeypatch):
    model = UIPCCRegressor(user_weight=0.5).fit(qos.X, qos.y)
    expected = model.predict(qos.X)
    monkeypatch.setattr(collaborative, "SIMILARITIES_PER_BLOCK", 100)
    np.testing.assert_array_equal(model.predict(qos.X), expected)


@pytest.mark.parametrize("factor", [1e-200, 1e150])
def test_values_of_any_size(qos, factor):
    expected = UIPCCRegressor().fit(qos.X, qos.y).predict(qos.X)
    scaled = UIPCCRegressor().fit(qos.X, factor * qos.y).predict(qos.X)
    np.testing.assert_allclose(scaled / factor, expected, rtol=1e-9)


# --- PMF against the formulas, written out ------------------------------------------------------


@pytest.fixture
def factored(measured):
    rng = np.random.default_rng(1)
    X, y = cells(measured)
    return interaction_matrix(*X.T, y, measured.shape), rng.random((9, 3)), rng.random((12, 3))


def test_the_objective_of_pmf(measured, factored):
    matrix, users, services = factored
    X, y = cells(measured)
    error = sum((value - users[u] @ services[s]) ** 2 for (u, s), value in zip(X, y, strict=True))
    penalty = 0.7 * ((users**2).sum() + (services**2).sum())
    np.testing.assert_allclose(pmf_loss(matrix, users, services, 0.7), (error + penalty) / 2)


def test_a_half_step_of_pmf_solves_each_row(measured, factored):
    matrix, _, services = factored
    for row, solved in zip(measured, solve_factors(matrix, services, 0.7), strict=True):
        seen = ~np.isnan(row)
        # Ridge regression, the penalty as rows of its own.
        A = np.vstack([services[seen], np.sqrt(0.7) * np.eye(3)])
        expected = np.linalg.lstsq(A, np.r_[row[seen], np.zeros(3)], rcond=None)[0]
        np.testing.assert_allclose(solved, expected)


def test_pmf_ends_where_the_gradient_vanishes(measured):
    X, y = cells(measured)
    model = PMFRegressor(n_factors=2, regularization=0.5, tol=0, max_iter=2000, random_state=0)
    model.fit(X, y)
    scale = np.abs(y).mean()
    users, services = model.user_factors_ / scale, model.service_factors_
    error = np.nan_to_num(measured / scale - users @ services.T)
    np.testing.assert_allclose(error @ services, 0.5 * users, atol=1e-5)
    np.testing.assert_allclose(error.T @ users, 0.5 * services, atol=1e-5)


def test_the_loss_of_pmf_never_rises_and_stops_it(qos, capsys):
    model = PMFRegressor(regularization=2.0, tol=1e-3, random_state=0, verbose=1).fit(qos.X, qos.y)
    assert 2 < model.n_iter_ == len(model.loss_curve_) < model.max_iter
    falls = -np.diff(model.loss_curve_) / model.loss_curve_[:-1]
    assert (falls[:-1] > 1e-3).all()
    assert 0 <= falls[-1] <= 1e-3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == model.n_iter_
    assert "iteration 1/100  loss" in captured.err


def test_pmf_does_not_depend_on_the_unit_but_on_the_seed(qos):
    model = PMFRegressor(max_iter=5, regularization=2.0, random_state=0)
    expected = model.fit(qos.X, qos.y).predict(qos.X)
    np.testing.assert_allclose(model.fit(qos.X, 1e6 * qos.y).predict(qos.X), 1e6 * expected)
    other = model.set_params(random_state=1).fit(qos.X, qos.y).predict(qos.X)
    assert (other != expected).any()


def test_pmf_finds_a_product():
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 2, (30, 2)) @ rng.uniform(1, 2, (40, 2)).T
    pairs = rng.permutation(np.argwhere(np.ones(truth.shape)))
    y = truth[tuple(pairs.T)]
    model = PMFRegressor(n_factors=2, regularization=0.01, max_iter=500, random_state=0)
    prediction = model.fit(pairs[:600], y[:600]).predict(pairs[600:])
    assert np.abs(prediction - y[600:]).mean() < 0.1 * np.abs(y - np.median(y)).mean()


# --- Both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [UIPCCRegressor(), PMFRegressor(max_iter=5, random_state=0)])
def test_unknown_ids_get_means(model, qos):
    model.fit(qos.X, qos.y)
    user, service = qos.X[0]
    prediction = model.predict([[user, -1], [-1, service], [-1, -1]])
    frame = pd.DataFrame({"user": qos.X[:, 0], "service": qos.X[:, 1], "y": qos.y})
    np.testing.assert_allclose(
        prediction,
        [
            frame.y[frame.user == user].mean(),
            frame.y[frame.service == service].mean(),
            frame.y.mean(),
        ],
    )


@pytest.mark.parametrize("model", [UIPCCRegressor(), PMFRegressor(max_iter=5, random_state=0)])
def test_repeated_cells_count_as_their_mean(model, qos):
    expected = model.fit(qos.X, qos.y).predict(qos.X)
    X, y = np.tile(qos.X, (2, 1)), np.r_[0.5 * qos.y, 1.5 * qos.y]
    np.testing.assert_allclose(model.fit(X, y).predict(qos.X), expected)


@pytest.mark.parametrize("user_weight", [0.0, 1.0])
def test_neighbours_beat_the_mean_on_real_data(wsdream1_path, user_weight):
    train, test = (
        np.loadtxt(wsdream1_path / "splits" / f"rt_{part}_0.025.txt") for part in ("train", "test")
    )
    X, X_test = train[:, :2].astype(int), test[::20, :2].astype(int)
    model = UIPCCRegressor(user_weight=user_weight).fit(X, train[:, 2])
    error = np.abs(model.predict(X_test) - test[::20, 2]).mean()
    assert error < 0.9 * np.abs(model.user_means_[X_test[:, 0]] - test[::20, 2]).mean()
