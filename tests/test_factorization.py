"""The interaction matrix and its truncated SVD."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skqos.factorization import (
    FOLD_ITERATIONS,
    assign_folds,
    interaction_matrix,
    nonnegative_factors,
    nonnegative_factors_by_fold,
    truncated_svd,
)


def low_rank(n_users=30, n_services=20, rank=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_users, rank)) @ rng.normal(size=(rank, n_services))


# --- interaction_matrix -------------------------------------------------------------------------


def test_repeated_cells_hold_their_mean():
    rng = np.random.default_rng(0)
    users, services, values = rng.integers(5, size=60), rng.integers(4, size=60), rng.random(60)
    matrix = interaction_matrix(users, services, values, (5, 4))
    cells = {}
    for user, service, value in zip(users, services, values, strict=True):
        cells.setdefault((int(user), int(service)), []).append(value)
    assert max(map(len, cells.values())) > 2
    assert matrix.nnz == len(cells)
    for cell, found in cells.items():
        assert matrix[cell] == pytest.approx(sum(found) / len(found), rel=1e-14)


def test_repeated_cells_hold_their_weighted_mean():
    rng = np.random.default_rng(0)
    users, services, values = rng.integers(5, size=60), rng.integers(4, size=60), rng.random(60)
    counts = rng.integers(1, 5, size=60)
    weighted = interaction_matrix(users, services, values, (5, 4), counts.astype(float))
    repeated = interaction_matrix(
        *(np.repeat(v, counts) for v in (users, services, values)), (5, 4)
    )
    assert_array_equal(weighted.indices, repeated.indices)
    np.testing.assert_allclose(weighted.data, repeated.data, rtol=1e-14)


def test_a_stored_zero_is_an_observation():
    matrix = interaction_matrix(
        np.array([0, 1, 1]), np.array([1, 0, 0]), np.array([0.0, 2.0, -2.0]), (2, 2)
    )
    assert matrix.nnz == 2
    assert_array_equal(np.column_stack(matrix.tocoo().coords), [[0, 1], [1, 0]])
    assert_array_equal(matrix.data, [0.0, 0.0])


def test_shape_type_and_empty_rows():
    matrix = interaction_matrix(np.array([2]), np.array([1]), np.array([1.5]), (4, 3))
    assert isinstance(matrix, sparse.csr_array)
    assert matrix.dtype == np.float64
    assert matrix.shape == (4, 3)
    assert matrix.sum() == matrix[2, 1] == 1.5


def test_the_callers_values_are_left_alone():
    values = np.array([1.0, 3.0])
    interaction_matrix(np.array([0, 0]), np.array([0, 0]), values, (1, 1))
    assert values.tolist() == [1.0, 3.0]


# --- truncated_svd ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
def test_a_low_rank_matrix_is_reconstructed(shape):
    dense = low_rank(*shape)
    users, services = truncated_svd(sparse.csr_array(dense), 3, random_state=0)
    assert users.shape == (shape[0], 3)
    assert services.shape == (shape[1], 3)
    assert_allclose(users @ services.T, dense, atol=1e-10)


def test_the_best_approximation_of_its_rank():
    dense = low_rank(rank=20)
    users, services = truncated_svd(sparse.csr_array(dense), 5, random_state=0)
    left, singular, right = np.linalg.svd(dense, full_matrices=False)
    assert_allclose(users @ services.T, (left[:, :5] * singular[:5]) @ right[:5], rtol=1e-3, atol=1)
    error = np.linalg.norm(dense - users @ services.T)
    assert error <= 1.01 * np.linalg.norm(singular[5:])


def test_singular_values_are_shared_out_evenly():
    users, services = truncated_svd(sparse.csr_array(low_rank()), 3, random_state=0)
    singular = np.linalg.svd(low_rank(), compute_uv=False)[:3]
    assert_allclose(users.T @ users, np.diag(singular), atol=1e-10)
    assert_allclose(services.T @ services, np.diag(singular), atol=1e-10)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (1, 9)])
def test_a_rank_larger_than_the_matrix_is_cut(shape):
    dense = np.random.default_rng(0).normal(size=shape)
    users, services = truncated_svd(sparse.csr_array(dense), 32, random_state=0)
    assert users.shape == (shape[0], min(shape))
    assert services.shape == (shape[1], min(shape))
    assert_allclose(users @ services.T, dense, atol=1e-10)


def test_rank_0_gives_factors_without_columns():
    users, services = truncated_svd(sparse.csr_array(low_rank()), 0, random_state=0)
    assert users.shape == (30, 0)
    assert services.shape == (20, 0)


def test_a_matrix_of_zeros_has_zero_factors():
    matrix = interaction_matrix(np.array([0]), np.array([0]), np.array([0.0]), (5, 4))
    users, services = truncated_svd(matrix, 2, random_state=0)
    assert_array_equal(users, np.zeros((5, 2)))
    assert_array_equal(services, np.zeros((4, 2)))


def test_the_seed_decides():
    matrix = sparse.random_array((60, 50), density=0.2, rng=np.random.default_rng(0)).tocsr()
    first, again, other = (truncated_svd(matrix, 4, random_state=seed) for seed in (1, 1, 2))
    assert_array_equal(first[0], again[0])
    assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


# --- nonnegative_factors ------------------------------------------------------------------------


def nonnegative(n_users=30, n_services=20, rank=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random(size=(n_users, rank)) @ rng.random(size=(rank, n_services))


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
def test_nonnegative_factors_approximate_a_matrix_of_their_rank(shape):
    dense = nonnegative(*shape)
    users, services = nonnegative_factors(sparse.csr_array(dense), 3, random_state=0)
    assert users.shape == (shape[0], 3)
    assert services.shape == (shape[1], 3)
    error = np.linalg.norm(users @ services.T - dense)
    assert error < 0.05 * np.linalg.norm(dense)


def test_factors_of_a_sparse_matrix_are_nonnegative_and_close():
    matrix = sparse.random_array((60, 50), density=0.2, rng=np.random.default_rng(0)).tocsr()
    users, services = nonnegative_factors(matrix, 8, random_state=0)
    assert min(users.min(), services.min()) >= 0
    best = np.linalg.norm(np.linalg.svd(matrix.toarray(), compute_uv=False)[8:])
    error = np.linalg.norm(matrix.toarray() - users @ services.T)
    assert best <= error < 1.1 * best


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (1, 9)])
def test_a_nonnegative_rank_larger_than_the_matrix_is_cut(shape):
    matrix = sparse.csr_array(nonnegative(*shape))
    users, services = nonnegative_factors(matrix, 32, random_state=0)
    assert users.shape == (shape[0], min(shape))
    assert services.shape == (shape[1], min(shape))


def test_a_matrix_of_zeros_has_finite_nonnegative_factors():
    matrix = interaction_matrix(np.array([0]), np.array([0]), np.array([0.0]), (5, 4))
    users, services = nonnegative_factors(matrix, 2, random_state=0)
    assert users.shape == (5, 2)
    assert services.shape == (4, 2)
    assert_allclose(users @ services.T, np.zeros((5, 4)), atol=1e-12)


def test_empty_rows_and_columns_have_finite_factors():
    matrix = interaction_matrix(
        np.array([0, 1, 1]), np.array([1, 0, 1]), np.array([1.0, 2.0, 0.5]), (6, 5)
    )
    users, services = nonnegative_factors(matrix, 2, random_state=0)
    assert np.isfinite(users).all()
    assert np.isfinite(services).all()
    assert_allclose(users[2:] @ services.T, np.zeros((4, 5)), atol=1e-6)


def test_the_seed_decides_nonnegative_factors():
    matrix = sparse.random_array((60, 50), density=0.2, rng=np.random.default_rng(0)).tocsr()
    first, again = (nonnegative_factors(matrix, 4, random_state=1) for _ in range(2))
    assert_array_equal(first[0], again[0])
    assert_array_equal(first[1], again[1])


def test_the_callers_matrix_is_left_alone():
    matrix = sparse.csr_array(nonnegative())
    before = matrix.toarray()
    nonnegative_factors(matrix, 3, random_state=0)
    assert_array_equal(matrix.toarray(), before)


# --- Any finite matrix --------------------------------------------------------------------------


VALUES = {
    "two values": lambda rng, n: rng.choice([0.0, 2.0], n),
    "constant": lambda rng, n: np.ones(n),
    "zeros": lambda rng, n: np.zeros(n),
    "any": lambda rng, n: rng.random(n),
    "heavy tail": lambda rng, n: np.exp(20 * rng.normal(size=n)),
    "one value": lambda rng, n: np.eye(n)[0],
}


@pytest.mark.parametrize("factor", [truncated_svd, nonnegative_factors])
@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("scale", [1.0, 1e300, 1e-300, 5e-324, 1e-20])
def test_factors_of_any_small_matrix_are_finite(factor, kind, scale):
    """Permutations give matrices whose singular values are all alike or 0."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        shape = rng.integers(1, 20, size=2)
        n = rng.integers(1, 25)
        users, services = (rng.permutation(np.arange(n) % size) for size in shape)
        values = np.minimum(scale * np.minimum(VALUES[kind](rng, n), 1e8), 1.7e308)
        matrix = interaction_matrix(users, services, values, tuple(shape))
        assert np.isfinite(matrix.data).all()
        for side, size in zip(factor(matrix, 32, random_state=seed), shape, strict=True):
            assert side.shape == (size, shape.min())
            assert np.isfinite(side).all()


@pytest.mark.parametrize("factor", [truncated_svd, nonnegative_factors])
@pytest.mark.parametrize("exponent", [-900, -40, 40, 900])
def test_factors_do_not_depend_on_the_unit(factor, exponent):
    matrix = sparse.random_array((30, 20), density=0.3, rng=np.random.default_rng(0)).tocsr()
    expected = factor(matrix, 4, random_state=0)
    matrix.data = np.ldexp(matrix.data, exponent)
    for side, other in zip(factor(matrix, 4, random_state=0), expected, strict=True):
        assert_array_equal(side, np.ldexp(other, exponent // 2))


def test_the_mean_of_repeated_huge_values_is_finite():
    matrix = interaction_matrix(np.zeros(3, int), np.zeros(3, int), np.full(3, 1.5e308), (1, 1))
    assert matrix.data == pytest.approx([1.5e308], rel=1e-14)


def test_where_directions_are_few_the_other_nonnegative_factors_are_0():
    """Of a zero singular value scikit-learn's start makes NaN, if its vectors differ in sign."""
    dense = np.outer(np.arange(1.0, 9.0), np.arange(1.0, 7.0))
    users, services = nonnegative_factors(sparse.csr_array(dense), 5, random_state=0)
    assert_allclose(users @ services.T, dense, rtol=1e-2)
    assert_array_equal(users[:, 1:], 0)
    assert_array_equal(services[:, 1:], 0)


# --- Factors without the cells of a fold --------------------------------------------------------

N_FOLDS = 4


def random_cells(seed=0, n=200):
    """Return a matrix of 20 users and 30 services whose values may be negative."""
    rng = np.random.default_rng(seed)
    users, services = np.divmod(rng.permutation(600)[:n], 30)
    return interaction_matrix(users, services, rng.normal(1, 1, n), (20, 30))


def by_fold(matrix):
    return np.concatenate(nonnegative_factors_by_fold(matrix, 3, N_FOLDS, 0), axis=1)


def test_cells_of_an_entity_are_spread_over_the_folds():
    users, services = np.indices((8, 12))
    folds = assign_folds(users, services, N_FOLDS)
    for cells in (*folds, *folds.T):
        assert (np.bincount(cells, minlength=N_FOLDS) == len(cells) / N_FOLDS).all()


@pytest.mark.parametrize("kind", ["any", "smallest", "largest"])
def test_the_value_of_a_cell_changes_the_factors_of_all_folds_but_its_own(kind):
    matrix = random_cells()
    at = {"any": 7, "smallest": matrix.data.argmin(), "largest": matrix.data.argmax()}[kind]
    other = matrix.copy()
    other.data[at] += 0.5
    cells = matrix.tocoo()
    own = assign_folds(cells.row[at], cells.col[at], N_FOLDS)
    before, after = by_fold(matrix), by_fold(other)
    is_changed = (before != after).any(axis=(1, 2))
    assert is_changed.tolist() == [fold != own for fold in range(N_FOLDS)]


def slow_descent(matrix, users, services):
    """Minimise the squared error over one column of factors after another."""
    users, services = users.copy(), services.copy()
    for _ in range(FOLD_ITERATIONS):
        for side, other, values in ((users, services, matrix), (services, users, matrix.T)):
            for k in range(side.shape[1]):
                rest = values - np.delete(side, k, 1) @ np.delete(other, k, 1).T
                side[:, k] = np.maximum(rest @ other[:, k] / (other[:, k] @ other[:, k]), 0)
    return users, services


def test_a_fold_is_left_out_of_a_few_iterations_from_a_common_start():
    matrix = random_cells()
    users, services = np.indices(matrix.shape)
    is_stored = np.zeros(matrix.shape, dtype=bool)
    is_stored[matrix.tocoo().coords] = True
    rng = np.random.RandomState(0)
    start = [
        side + 0.1 * side.mean() * rng.random_sample(side.shape)
        for side in nonnegative_factors(sparse.csr_array(is_stored.astype(float)), 3, 0)
    ]
    found = nonnegative_factors_by_fold(matrix, 3, N_FOLDS, 0)
    for fold in range(N_FOLDS):
        kept = is_stored & ((users + services) % N_FOLDS != fold)
        dense = np.where(kept, matrix.toarray() - matrix.toarray()[kept].min(), 0.0)
        expected = slow_descent(dense / dense[kept].mean(), *start)
        for side, slow in zip(found, expected, strict=True):
            assert_allclose(side[fold], slow, rtol=1e-6, atol=1e-9)


def test_components_of_different_folds_correspond():
    users, services, _, values = sparse_problem()
    matrix = interaction_matrix(users, services, values, (60, 80))
    factors = np.concatenate(nonnegative_factors_by_fold(matrix, 5, 20, 0), axis=1)
    correlations = [
        np.corrcoef(factors[0][:, k], factors[fold][:, k])[0, 1]
        for fold in range(1, 20)
        for k in range(5)
    ]
    assert np.mean(correlations) > 0.9


def sparse_problem():
    rng = np.random.default_rng(0)
    truth = rng.gamma(1.0, size=(60, 5)) @ rng.gamma(1.0, size=(5, 80))
    users, services = np.divmod(rng.permutation(truth.size)[:1500], 80)
    return users, services, truth, truth[users, services]


def test_a_full_matrix_has_all_components():
    """Its pattern has rank 1."""
    truth = sparse_problem()[2]
    sides = nonnegative_factors_by_fold(sparse.csr_array(truth), 5, 20, 0)
    for side in sides:
        assert np.linalg.matrix_rank(side[0]) == 5


@pytest.mark.parametrize("scale", [0.0, 1e-300, -1.0, 1e300])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_factors_of_folds_are_finite(n, scale):
    cells = np.arange(n)
    matrix = interaction_matrix(cells, cells, scale * (1.0 + cells), (4, 5))
    users, services = nonnegative_factors_by_fold(matrix, 10, 3, 0)
    assert users.shape == (3, 4, 4)
    assert services.shape == (3, 5, 4)
    for side in (users, services):
        assert np.isfinite(side).all()
        assert (side >= 0).all()
