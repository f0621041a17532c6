"""Factors of the sparse interaction matrix."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import randomized_svd

NMF_TOLERANCE = 1e-3
NMF_MAX_ITER = 50


def interaction_matrix(
    users: np.ndarray, services: np.ndarray, values: np.ndarray, shape: tuple[int, int]
) -> sparse.csr_array:
    """Arrange interactions as a sparse matrix; repeated cells hold their mean.

    Parameters
    ----------
    users, services : ndarray of int64 of shape (n,)
        Codes of the entities.
    values : ndarray of float of shape (n,)
        What was observed there.
    shape : tuple of int
        Number of users and of services.

    Returns
    -------
    csr_array of float64 of shape `shape`
        Cells without an observation are not stored.
    """
    # Both conversions add up repeated cells and end with the same structure.
    matrix = sparse.coo_array((values, (users, services)), shape=shape).tocsr()
    counts = sparse.coo_array((np.ones(len(values)), (users, services)), shape=shape).tocsr()
    matrix.data /= counts.data
    return matrix


def truncated_svd(
    matrix: sparse.csr_array, n_components: int, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factor a sparse matrix by truncated SVD, the singular values shared out evenly.

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
    left, singular, right = randomized_svd(matrix, rank, random_state=random_state)
    root = np.sqrt(singular)
    return left * root, right.T * root


def nonnegative_factors(
    matrix: sparse.csr_array, n_components: int, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factor a sparse matrix of non-negative values by NMF.

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
    # Imported here: it would be half of what `import skqos` takes beside scikit-learn's own.
    from sklearn.decomposition import NMF

    model = NMF(
        min(n_components, *matrix.shape),
        init="nndsvda",
        tol=NMF_TOLERANCE,
        max_iter=NMF_MAX_ITER,
        random_state=random_state,
    )
    with warnings.catch_warnings():
        # Features need no optimum, and where the matrix has few components more than those of
        # its start are none (sqrt of a negative rounding error).
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        user_factors = model.fit_transform(sparse.csr_matrix(matrix))
    return user_factors, model.components_.T
