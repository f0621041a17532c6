"""Self-augmentation: drawing unobserved cells, which the model predicts."""

from __future__ import annotations

import numpy as np

from skqos._arrays import draw_distinct, sorted_unique
from skqos._warnings import warn_user

MANY_CELLS = 10_000_000


def count_cells(ratio: float, unit: str, n_observed: int, n_cells: int) -> int:
    """Return the number of unobserved cells for a ratio.

    Parameters
    ----------
    ratio : float
        Multiple of the number of observed cells, or fraction of the missing cells.
    unit : {"observed", "missing"}
        Unit of the ratio.
    n_observed, n_cells : int
        Numbers of observed cells and of all cells of the matrix.

    Returns
    -------
    int
        Number of cells, at most the number of missing cells.
    """
    n_missing = n_cells - n_observed
    n_asked = round(ratio * (n_observed if unit == "observed" else n_missing))
    n_wanted = min(n_asked, n_missing)
    if n_wanted > MANY_CELLS:
        warn_user(
            f"Refill or pseudo-labels need {n_wanted:,} cells, and proportional time and memory; "
            f"ratio={ratio} is a multiple of the {unit} cells."
        )
    return n_wanted


def observed_cells(users: np.ndarray, services: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the numbers of the observed cells of a matrix, ascending and distinct.

    Parameters
    ----------
    users, services : ndarray of int64 of shape (n,)
        Codes; repetitions are allowed.
    shape : tuple of int
        Number of users and of services.
    """
    return sorted_unique(users * shape[1] + services)


def sample_unobserved(
    observed: np.ndarray,
    shape: tuple[int, int],
    n_cells: int,
    rng: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw distinct cells that were not observed, uniformly (eq. 8).

    Users and services are those of the training rows, so that each has a representation. All cells
    are enumerated only if more than half of the missing cells are drawn.

    Parameters
    ----------
    observed : ndarray of int64 of shape (n_observed,)
        Result of `observed_cells`.
    shape : tuple of int
        Number of users and of services.
    n_cells : int
        Number of cells to draw, at most the number of missing cells.
    rng : RandomState
        Source of randomness.

    Returns
    -------
    users, services : ndarray of int64 of shape (n_cells,)
        Codes of the drawn cells.
    """
    cells = draw_distinct(shape[0] * shape[1], n_cells, rng, excluded=observed)
    return np.divmod(cells, shape[1])
