"""Factors of the sparse interaction matrix."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import randomized_svd

# Exponent of a power of two for which sums of many numbers are finite.
MAX_EXPONENT = 900
NMF_TOLERANCE = 1e-3
NMF_MAX_ITER = 50
# More iterations fit the matrix better, but after them the factors of different folds differ more.
FOLD_ITERATIONS = 5
# Size of random numbers relative to the mean of the factors that they are added to.
NOISE = 0.1
# Relative singular value below which a direction is a rounding error.
MIN_SINGULAR_VALUE = 1e-10


def interaction_matrix(
    users: np.ndarray,
    services: np.ndarray,
    values: np.ndarray,
    shape: tuple[int, int],
    weights: np.ndarray | None = None,
) -> sparse.csr_array:
    """Return interactions as a sparse matrix with the weighted mean of repeated cells.

    Parameters
    ----------
    users, services : ndarray of int64 of shape (n,)
        Codes of the entities.
    values : ndarray of float of shape (n,)
        Observed values.
    shape : tuple of int
        Number of users and of services.
    weights : ndarray of float64 of shape (n,), default=None
        Positive weights of the interactions; None is 1 for all.

    Returns
    -------
    csr_array of float64 of shape `shape`
        Cells without an observation are not stored.
    """
    weights = np.ones(len(values)) if weights is None else weights
    counts = sparse.coo_array((weights, (users, services)), shape=shape).tocsr()
    # Sums of repeated cells may overflow although their mean does not.
    exponent = max(_exponent(np.abs(values).max(initial=0.0)) - MAX_EXPONENT, 0)
    small = np.ldexp(values, -exponent) * weights
    # Both conversions add repeated cells and have the same structure.
    matrix = sparse.coo_array((small, (users, services)), shape=shape).tocsr()
    matrix.data = np.ldexp(matrix.data / counts.data, exponent)
    return matrix


def truncated_svd(
    matrix: sparse.csr_array, n_components: int, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factorise a sparse matrix by truncated SVD, with singular values split evenly.

    Parameters
    ----------
    matrix : csr_array of shape (n_users, n_services)
        Cells that are not stored count as 0.
    n_components : int
        Rank; at most the smaller side of the matrix is returned.
    random_state : int
        Seed of the randomised range finder.

    Returns
    -------
    user_factors, service_factors : ndarray of shape (n_users, rank), (n_services, rank)
        U S^(1/2) and V S^(1/2): their product approximates the matrix.
    """
    rank = min(n_components, *matrix.shape)
    if rank == 0:
        return np.empty((matrix.shape[0], 0)), np.empty((matrix.shape[1], 0))
    matrix, exponent = _rescale(matrix)
    left, singular, right = randomized_svd(matrix, rank, random_state=random_state)
    root = np.ldexp(np.sqrt(singular), exponent // 2)
    return left * root, right.T * root


def nonnegative_factors(
    matrix: sparse.csr_array, n_components: int, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factorise a sparse matrix of non-negative values by NMF.

    Parameters
    ----------
    matrix : csr_array of shape (n_users, n_services)
        Cells that are not stored count as 0.
    n_components : int
        Rank; at most the smaller side of the matrix is returned.
    random_state : int
        Seed of the solver.

    Returns
    -------
    user_factors, service_factors : ndarray of shape (n_users, rank), (n_services, rank)
        Non-negative; their product approximates the matrix.
    """
    rank = min(n_components, *matrix.shape)
    matrix, exponent = _rescale(sparse.csr_matrix(matrix))
    found = _numerical_rank(matrix, rank, random_state)
    factors = np.zeros((matrix.shape[0], rank)), np.zeros((matrix.shape[1], rank))
    if found:
        for side, columns in zip(factors, _fit_nmf(matrix, found, random_state), strict=True):
            side[:, :found] = np.ldexp(columns, exponent // 2)
    return factors


def assign_folds(users: np.ndarray, services: np.ndarray, n_folds: int) -> np.ndarray:
    """Assign cells to folds, which are diagonals of the matrix.

    A cell is always in the same fold, so that folds need not be stored. The cells of each user, and
    of each service, are in different folds.

    Parameters
    ----------
    users, services : ndarray of int64 of shape (n,)
        Codes of the entities.
    n_folds : int
        Number of folds.

    Returns
    -------
    ndarray of int64 of shape (n,)
        Fold of each cell.
    """
    return (users + services) % n_folds


def nonnegative_factors_by_fold(
    matrix: sparse.csr_array, n_components: int, n_folds: int, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factorise a sparse matrix by NMF without the cells of each fold.

    The factors of a fold do not depend on the values of its cells. All folds start from the factors
    of the pattern, which depend on no value, and take a few iterations, so that the components of
    different folds correspond. The pattern is the matrix with 1 for each stored cell.

    Parameters
    ----------
    matrix : csr_array of shape (n_users, n_services)
        Cells that are not stored count as 0. Values may be negative; the smallest one of the other
        folds is subtracted then.
    n_components : int
        Rank; at most the smaller side of the matrix is returned.
    n_folds : int
        Number of folds; see `assign_folds`.
    random_state : int
        Seed of the solver.

    Returns
    -------
    user_factors, service_factors : ndarray of shape (n_folds, n_users, rank), \
            (n_folds, n_services, rank)
        Non-negative. They approximate the matrix, divided by the mean of its cells.
    """
    cells = matrix.tocoo()
    start = _pattern_factors(cells, n_components, random_state)
    folds = assign_folds(cells.row, cells.col, n_folds)
    found = [_iterate(_without(cells, folds == fold), start) for fold in range(n_folds)]
    user_factors, service_factors = (np.stack(side) for side in zip(*found, strict=True))
    return user_factors, service_factors


def _pattern_factors(
    cells: sparse.coo_array, n_components: int, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factorise the pattern of a matrix.

    The pattern may have a lower rank than the matrix, and iterations would not change components
    that are 0. Therefore positive random numbers are added.
    """
    ones = sparse.csr_array((np.ones(cells.nnz), (cells.row, cells.col)), shape=cells.shape)
    rng = np.random.RandomState(random_state)
    user_factors, service_factors = (
        side + NOISE * side.mean() * rng.random_sample(side.shape)
        for side in nonnegative_factors(ones, n_components, random_state)
    )
    return user_factors, service_factors


def _without(cells: sparse.coo_array, is_left_out: np.ndarray) -> sparse.csr_matrix:
    """Return the matrix of the other cells, shifted to non-negative values of mean 1 or 0."""
    kept = ~is_left_out
    # Sums of the largest values may overflow.
    values = cells.data[kept] / (np.abs(cells.data[kept]).max(initial=0.0) or 1.0)
    values -= min(values.min(initial=0.0), 0.0)
    if values.any():
        values /= values.mean()
    return sparse.csr_matrix((values, (cells.row[kept], cells.col[kept])), cells.shape)


def _iterate(
    matrix: sparse.csr_matrix, start: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Improve factors by a few iterations."""
    if not matrix.data.any():
        return np.zeros_like(start[0]), np.zeros_like(start[1])
    user_factors, service_factors = start
    return _solve_nmf(
        matrix,
        n_components=user_factors.shape[1],
        init="custom",
        W=user_factors.copy(),
        H=np.ascontiguousarray(service_factors.T),
        tol=0.0,
        max_iter=FOLD_ITERATIONS,
    )


def _fit_nmf(
    matrix: sparse.csr_matrix, rank: int, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    return _solve_nmf(
        matrix,
        n_components=rank,
        init="nndsvda",
        tol=NMF_TOLERANCE,
        max_iter=NMF_MAX_ITER,
        random_state=random_state,
    )


def _solve_nmf(matrix: sparse.csr_matrix, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    # Imported here, because it is slow to import.
    from sklearn.decomposition import non_negative_factorization

    with warnings.catch_warnings():
        # Features need not be optimal.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # The class NMF would take the root of an error that may be negative by rounding.
        user_factors, service_factors, _ = non_negative_factorization(matrix, **options)
    return user_factors, service_factors.T


def _numerical_rank(matrix: sparse.csr_matrix, rank: int, random_state: int) -> int:
    """Return the number of directions for the start of NMF, at most `rank`.

    If the singular value of a pair of singular vectors is 0, their signs are arbitrary, and
    scikit-learn's initialisation may divide by 0.
    """
    singular = randomized_svd(matrix, rank, random_state=random_state)[1]
    return int((singular > MIN_SINGULAR_VALUE * singular[0]).sum())


def _rescale(matrix: sparse.csr_array) -> tuple[sparse.csr_array, int]:
    """Divide a matrix by a power of 4 near its mean magnitude; also return the exponent of 2.

    Squares of very large or small values would be infinite or 0; scaling by a power of 2 is exact.
    """
    sizes = np.abs(matrix.data)
    largest = sizes.max(initial=0.0)
    if largest == 0:
        return matrix, 0
    exponent = (_exponent(largest * (sizes / largest).mean()) + 1) // 2 * 2
    matrix = matrix.copy()
    matrix.data = np.ldexp(matrix.data, -exponent)
    return matrix, exponent


def _exponent(value: float) -> int:
    return int(np.frexp(value)[1])
